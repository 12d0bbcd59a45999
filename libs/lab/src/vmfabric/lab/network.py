"""The data centre's networks: made, and a node's kernel as it is after a reboot."""

import json

from vmfabric.contract.dataplane import KERNEL_PROTOCOL
from vmfabric.lab import namespaces, routing, switching
from vmfabric.lab.cables import ROUTER_SYSCTLS, UPLINK, add_bridge, address, data_port, management_port, plug, route
from vmfabric.lab.programs import run
from vmfabric.lab.topology import CONTROL, SWITCH, AnyNode, Fabric, Router, Topology

FABRIC_LINK = "fabric0"
"""A host's interface on the fabric."""
MANAGEMENT_LINK = "mgmt0"
"""A host's interface on the management network."""

_FABRIC_BRIDGE = "fabric"
_MANAGEMENT_BRIDGE = "management"
_MANAGEMENT_MTU = 1500

_FORGOTTEN_GROUP = "86"


def build(topology: Topology) -> None:
    """Make every namespace, bridge and link of the topology. LabError when a name is taken."""
    _build_switch(topology)
    namespaces.create(topology.namespace(CONTROL))
    _manage(topology, CONTROL)
    if topology.fabric is not None:
        add_bridge(topology, _FABRIC_BRIDGE, topology.fabric.mtu)
        for router in topology.routers:
            _build_router(topology, topology.fabric, router)
    if topology.switching is not None:
        switching.build(topology, topology.switching)
    if topology.routing is not None:
        routing.build(topology, topology.routing)
    for node in topology.all_nodes:
        _manage(topology, node.name)
        _boot(topology, node)


def forget(topology: Topology, node: AnyNode) -> None:
    """Everything in a node's kernel that a reboot does not bring back; what it has at boot is there again."""
    namespace = topology.namespace(node.name)
    if links := _links(namespace) - {"lo", FABRIC_LINK, UPLINK, MANAGEMENT_LINK}:
        # As one group, with the other ends of veths: the kernel waits some 20 ms for each that is deleted alone.
        marking = [f"link set dev {link} group {_FORGOTTEN_GROUP}" for link in sorted(links)]
        run("ip", "-n", namespace, "-batch", "-", stdin="\n".join(marking) + "\n")
        run("ip", "-n", namespace, "link", "delete", "group", _FORGOTTEN_GROUP)
    run(*namespaces.inside(namespace, "nft", "flush", "ruleset"))
    for family in ("-4", "-6"):
        run("ip", "-n", namespace, family, "route", "flush", "proto", str(KERNEL_PROTOCOL))
    if node not in topology.nodes:
        # Proxy entries go with the link's being down, and so do IPv6 addresses.
        run("ip", "-n", namespace, "link", "set", UPLINK, "down")
        run("ip", "-n", namespace, "address", "flush", "dev", UPLINK)
        run("ip", "-n", namespace, "link", "set", UPLINK, "up")
    _boot(topology, node)


def _links(namespace: str) -> set[str]:
    return {row["ifname"] for row in json.loads(run("ip", "-n", namespace, "-json", "link", "show"))}


def _build_switch(topology: Topology) -> None:
    switch = topology.namespace(SWITCH)
    namespaces.create(switch)
    # No IPv6 of its own: a switch that answers nothing cannot hide a fault.
    namespaces.set_sysctls(switch, {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"})
    add_bridge(topology, _MANAGEMENT_BRIDGE, _MANAGEMENT_MTU)


def _manage(topology: Topology, host: str) -> None:
    own = topology.management.control if host == CONTROL else topology.node(host).management
    plug(topology, host, MANAGEMENT_LINK, management_port(host), bridge=_MANAGEMENT_BRIDGE, mtu=_MANAGEMENT_MTU)
    address(topology.namespace(host), MANAGEMENT_LINK, own, topology.management.ipv4.prefixlen)


def _build_router(topology: Topology, fabric: Fabric, router: Router) -> None:
    namespace = topology.namespace(router.name)
    namespaces.create(namespace)
    namespaces.set_sysctls(namespace, ROUTER_SYSCTLS)
    plug(topology, router.name, FABRIC_LINK, data_port(router.name), bridge=_FABRIC_BRIDGE, mtu=fabric.mtu)
    address(namespace, FABRIC_LINK, router.ipv4, fabric.ipv4.prefixlen)
    address(namespace, FABRIC_LINK, router.ipv6, fabric.ipv6.prefixlen)


def _boot(topology: Topology, node: AnyNode) -> None:
    namespace = topology.namespace(node.name)
    if topology.switching is not None and node in topology.switching.nodes:
        switching.boot(namespace, topology.switching, node)
    elif topology.routing is not None and node in topology.routing.nodes:
        routing.boot(namespace, topology.routing, node)
    elif topology.core is not None:
        # Nodes learn no routes; what is not theirs goes to the core, VMs of other nodes too.
        route(namespace, "0.0.0.0/0", "via", str(topology.core.ipv4))
        route(namespace, "::/0", "via", str(topology.core.ipv6))
