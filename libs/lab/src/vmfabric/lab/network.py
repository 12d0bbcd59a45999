"""The cables: a switch namespace with two bridges, and a veth from each host to them."""

import json
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from vmfabric.contract.dataplane import KERNEL_PROTOCOL
from vmfabric.lab import namespaces
from vmfabric.lab.programs import run
from vmfabric.lab.topology import CONTROL, SWITCH, Node, Router, Topology

FABRIC_LINK = "fabric0"
"""A host's interface on the fabric."""
MANAGEMENT_LINK = "mgmt0"
"""A host's interface on the management network."""

_FABRIC_BRIDGE = "fabric"
_MANAGEMENT_BRIDGE = "management"

_FORGOTTEN_GROUP = "86"

_ROUTER_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    # Packets from one node to another by way of the core leave by the link they came on; nobody should be told to
    # take a short cut to an address that may move.
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
}


def fabric_port(host: str) -> str:
    """The switch's port that leads to the host's fabric link."""
    return f"f-{host}"


def management_port(host: str) -> str:
    """The switch's port that leads to the host's management link."""
    return f"m-{host}"


def build(topology: Topology) -> None:
    """Make every namespace, bridge and link of the topology. LabError when a name is taken."""
    _build_switch(topology)
    _build_control(topology)
    for router in topology.routers:
        _build_router(topology, router)


def forget(topology: Topology, node: Node) -> None:
    """Everything in a node's kernel that a reboot does not bring back; its own two links stay."""
    namespace = topology.namespace(node.name)
    if links := _links(namespace) - {"lo", FABRIC_LINK, MANAGEMENT_LINK}:
        # As one group, with the other ends of veths: the kernel waits some 20 ms for each that is deleted alone.
        marking = [f"link set dev {link} group {_FORGOTTEN_GROUP}" for link in sorted(links)]
        run("ip", "-n", namespace, "-batch", "-", stdin="\n".join(marking) + "\n")
        run("ip", "-n", namespace, "link", "delete", "group", _FORGOTTEN_GROUP)
    run(*namespaces.inside(namespace, "nft", "flush", "ruleset"))
    for family in ("-4", "-6"):
        run("ip", "-n", namespace, family, "route", "flush", "proto", str(KERNEL_PROTOCOL))


def _links(namespace: str) -> set[str]:
    return {row["ifname"] for row in json.loads(run("ip", "-n", namespace, "-json", "link", "show"))}


def _build_switch(topology: Topology) -> None:
    switch = topology.namespace(SWITCH)
    namespaces.create(switch)
    # No IPv6 of its own: a switch that answers nothing cannot hide a fault.
    namespaces.set_sysctls(switch, {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"})
    for bridge in (_FABRIC_BRIDGE, _MANAGEMENT_BRIDGE):
        run("ip", "-n", switch, "link", "add", bridge, "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
        run("ip", "-n", switch, "link", "set", bridge, "mtu", str(topology.fabric.mtu), "up")


def _build_control(topology: Topology) -> None:
    control = topology.namespace(CONTROL)
    namespaces.create(control)
    _plug(topology, CONTROL, MANAGEMENT_LINK, management_port(CONTROL), _MANAGEMENT_BRIDGE)
    _address(control, MANAGEMENT_LINK, topology.management.control, topology.management.ipv4.prefixlen)


def _build_router(topology: Topology, router: Router) -> None:
    namespace = topology.namespace(router.name)
    namespaces.create(namespace)
    namespaces.set_sysctls(namespace, _ROUTER_SYSCTLS)
    _plug(topology, router.name, FABRIC_LINK, fabric_port(router.name), _FABRIC_BRIDGE)
    _address(namespace, FABRIC_LINK, router.ipv4, topology.fabric.ipv4.prefixlen)
    _address(namespace, FABRIC_LINK, router.ipv6, topology.fabric.ipv6.prefixlen)
    if isinstance(router, Node):
        _plug(topology, router.name, MANAGEMENT_LINK, management_port(router.name), _MANAGEMENT_BRIDGE)
        _address(namespace, MANAGEMENT_LINK, router.management, topology.management.ipv4.prefixlen)
        # Nodes learn no routes; what is not theirs goes to the core, VMs of other nodes too.
        run("ip", "-n", namespace, "route", "add", "default", "via", str(topology.core.ipv4))
        run("ip", "-n", namespace, "-6", "route", "add", "default", "via", str(topology.core.ipv6))


def _plug(topology: Topology, host: str, link: str, port: str, bridge: str) -> None:
    namespace, switch = topology.namespace(host), topology.namespace(SWITCH)
    run("ip", "-n", namespace, "link", "add", link, "type", "veth", "peer", "name", port, "netns", switch)
    run("ip", "-n", switch, "link", "set", port, "master", bridge, "mtu", str(topology.fabric.mtu), "up")
    run("ip", "-n", namespace, "link", "set", link, "mtu", str(topology.fabric.mtu), "up")


def _address(namespace: str, link: str, address: IPv4Address | IPv6Address, length: int) -> None:
    if isinstance(address, IPv4Address):
        run("ip", "-n", namespace, "address", "add", str(IPv4Interface((address, length))), "dev", link)
    else:
        # Addresses of the topology are unique by validation: no second to wait for duplicate detection.
        interface = str(IPv6Interface((address, length)))
        run("ip", "-n", namespace, "address", "add", interface, "dev", link, "nodad")
