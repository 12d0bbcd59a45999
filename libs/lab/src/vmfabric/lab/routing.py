"""A provider's network: a switch with port security, and a router that sends each server its addresses.

For one that is `routed` the router has routes: for its subnets to its own address, for its /64 to its link-local one,
as at Hetzner. Of one that is `on-link` they are on the router's interface, which asks for each address by ARP and
neighbour discovery, as at OVH.
"""

import json
from ipaddress import IPv6Address

from vmfabric.contract.addresses import HostAddress, Prefix, link_local
from vmfabric.contract.cluster import Upstream
from vmfabric.lab import namespaces
from vmfabric.lab.cables import ROUTER_SYSCTLS, UPLINK, add_bridge, address, data_port, mac, plug, route
from vmfabric.lab.programs import run
from vmfabric.lab.topology import SWITCH, Node, RentedNode, Routing, Topology

BRIDGE = "provider"
"""In the switch's namespace."""
GATEWAY6 = IPv6Address("fe80::1")
"""The provider's router, as every server sees it."""

_TABLE = "port_security"
_MTU = 1500


def build(topology: Topology, part: Routing) -> None:
    """Make it. Each node is to be booted then."""
    add_bridge(topology, BRIDGE, _MTU)
    for host in part.hosts:
        namespaces.create(topology.namespace(host.name))
        plug(topology, host.name, UPLINK, data_port(host.name), bridge=BRIDGE, mtu=_MTU)
    _secure_ports(topology, part)
    provider = topology.namespace(part.provider.name)
    namespaces.set_sysctls(provider, ROUTER_SYSCTLS)
    address(provider, UPLINK, part.provider.ipv4, part.ipv4.prefixlen)
    address(provider, UPLINK, part.provider.ipv6, part.provider.ipv6.max_prefixlen)
    address(provider, UPLINK, GATEWAY6, 64)
    for node in part.nodes:
        _send(topology, provider, node)


def boot(namespace: str, part: Routing, node: RentedNode | Node) -> None:
    """What a node configures by itself: its own address, and the default routes."""
    address(namespace, UPLINK, node.ipv4, part.ipv4.prefixlen)
    route(namespace, "0.0.0.0/0", "via", str(part.provider.ipv4), "dev", UPLINK)
    route(namespace, "::/0", "via", str(GATEWAY6), "dev", UPLINK)


def refused_frames(topology: Topology) -> dict[str, int]:
    """How many frames from each server the switch has dropped, since their source was another MAC address."""
    if topology.routing is None:
        return {}
    shown = run(*namespaces.inside(topology.namespace(SWITCH), "nft", "-j", "list", "counters", "netdev"))
    counters = [it["counter"] for it in json.loads(shown)["nftables"] if "counter" in it]
    return {counter["name"]: int(counter["packets"]) for counter in counters}


def _secure_ports(topology: Topology, part: Routing) -> None:
    lines = [f"table netdev {_TABLE} {{"]
    for node in part.nodes:
        own = mac(topology.namespace(node.name), UPLINK)
        lines += [
            f"  counter {node.name} {{}}",
            f"  chain {node.name} {{",
            f'    type filter hook ingress device "{data_port(node.name)}" priority 0;',
            f"    ether saddr != {own} counter name {node.name} drop",
            "  }",
        ]
    run(*namespaces.inside(topology.namespace(SWITCH), "nft", "-f", "-"), stdin="\n".join([*lines, "}", ""]))


def _send(topology: Topology, provider: str, node: RentedNode) -> None:
    def send(prefix: Prefix, server: HostAddress) -> None:
        via = ("via", str(server)) if node.upstream is Upstream.ROUTED else ()
        route(provider, str(prefix), *via, "dev", UPLINK)

    for subnet in node.subnets:
        send(subnet, node.ipv4)
    # The kernel gives it to the NIC as soon as that has a carrier.
    send(node.ipv6.network, link_local(mac(topology.namespace(node.name), UPLINK)))
