"""A physical network: its switch, the gateway, and nodes with their own addresses on their NICs."""

from vmfabric.lab import namespaces
from vmfabric.lab.cables import ROUTER_SYSCTLS, UPLINK, add_bridge, address, data_port, plug, route
from vmfabric.lab.topology import Router, Switching, Topology

BRIDGE = "physical"
"""In the switch's namespace."""


def build(topology: Topology, part: Switching) -> None:
    """Make it. Each node is to be booted then."""
    add_bridge(topology, BRIDGE, part.mtu)
    for host in part.hosts:
        namespaces.create(topology.namespace(host.name))
        plug(topology, host.name, UPLINK, data_port(host.name), bridge=BRIDGE, mtu=part.mtu)
    gateway = topology.namespace(part.gateway.name)
    namespaces.set_sysctls(gateway, ROUTER_SYSCTLS)
    _addresses(gateway, part, part.gateway)


def boot(namespace: str, part: Switching, node: Router) -> None:
    """What a node configures by itself: its own addresses, and the default routes."""
    _addresses(namespace, part, node)
    route(namespace, "0.0.0.0/0", "via", str(part.gateway.ipv4), "dev", UPLINK)
    route(namespace, "::/0", "via", str(part.gateway.ipv6), "dev", UPLINK)


def _addresses(namespace: str, part: Switching, host: Router) -> None:
    address(namespace, UPLINK, host.ipv4, part.ipv4.prefixlen)
    address(namespace, UPLINK, host.ipv6, part.ipv6.prefixlen)
