"""What a demo shows of each network type: which VMs on which nodes, and who pings whom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.cluster import NetworkType
from vmfabric.lab.topology import AnyNode, Topology


@dataclass(frozen=True, slots=True)
class Plan:
    """What is shown of one type."""

    cluster: str
    router: str
    """The host that every VM is pinged from."""
    nodes: Sequence[AnyNode]
    vms: Mapping[str, str | None]
    """Each VM with the node that it is asked for on; None: whichever is chosen."""
    pairs: Sequence[tuple[str, str]] = ()
    """The first VM pings the second one."""
    gateways: Sequence[HostAddress] = ()
    """Every VM pings them."""


def plans(topology: Topology, count: int) -> Mapping[NetworkType, Plan]:
    """For every type that the data centre has. `count` is of the VMs of an ip-fabric."""
    found: dict[NetworkType, Plan] = {}
    if topology.core is not None:
        anywhere = {f"vm{number}": None for number in range(1, count + 1)}
        found[NetworkType.IP_FABRIC] = Plan(
            topology.nodes[0].cluster, topology.core.name, topology.nodes, vms=anywhere
        )
    if (physical := topology.switching) is not None:
        vms = {f"vm{number}": node.name for number, node in enumerate(physical.nodes, 1)}
        found[NetworkType.SWITCHING] = Plan(
            physical.nodes[0].cluster,
            physical.gateway.name,
            physical.nodes,
            vms,
            [(one, other) for one in vms for other in vms if one != other],
            (physical.gateway.ipv4, physical.gateway.ipv6),
        )
    if (rented := topology.routing) is not None:
        # Two on each node: one has a neighbour on its own node and, with the next node, one on another.
        twins = [(f"{node.name}-a", f"{node.name}-b", node.name) for node in rented.nodes]
        found[NetworkType.ROUTING] = Plan(
            rented.nodes[0].cluster,
            rented.provider.name,
            rented.nodes,
            {vm: node for first, second, node in twins for vm in (first, second)},
            [(first, second) for first, second, _ in twins]
            + [(one, other) for one, _, _ in twins for other, _, _ in twins if one != other],
        )
    return found
