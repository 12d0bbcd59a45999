"""The VLANs that ports of bridges are in: a VM's port in that of its network, the uplink in those of all of them.

A VM's port is in one VLAN, and knows nothing of tags. In a bridge of ours the uplink is in the VLANs of the node's
VMs, tagged, and keeps what is not tagged and what an operator has put there. In an operator's bridge it is the
operator's.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby

from vmfabric.contract.desired import Presence
from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain import bridge_operations as bridges
from vmfabric.node_agent.domain.actual import Actual, Link, LinkKind, PortVlan
from vmfabric.node_agent.domain.naming import ALIAS_PREFIX, BRIDGE_ALIAS
from vmfabric.node_agent.domain.port import Port


def problem_of(port: Port, actual: Actual, strangers: Collection[Link]) -> str | None:
    """Why the VM cannot be in its network, as far as VLANs are the reason. `strangers` are ports that are no VM's."""
    bridge = None if port.bridge is None else actual.links.get(port.bridge)
    if bridge is None or bridge.kind != LinkKind.BRIDGE:
        return None
    if port.vlan is None:
        return _without_a_vlan(bridge)
    reason = _in_the_way(port.vlan, bridge, strangers, actual.links.values())
    return None if reason is None else f"the VM's network has VLAN {port.vlan}, {reason}"


def _without_a_vlan(bridge: Link) -> str | None:
    filtering = bridge.filtering
    if filtering is None or not filtering.is_on or filtering.untagged:
        return None
    return (
        f"the VM's network has no VLAN, and a port of {bridge.name} is in none unless it is told "
        "(vlan_default_pvid 0); give the network its VLAN, or the bridge another vlan_default_pvid"
    )


def _in_the_way(vlan: int, bridge: Link, strangers: Collection[Link], links: Collection[Link]) -> str | None:
    filtering = bridge.filtering
    if filtering is None:
        return (
            "and the kernel of this node cannot keep VLANs apart in a bridge: it was built without "
            "CONFIG_BRIDGE_VLAN_FILTERING; boot another one, or name a bridge over a VLAN device as the cluster's, "
            "with autosetup false, and leave out the network's VLAN"
        )
    if vlan == filtering.untagged:
        return (
            f"which inside {bridge.name} is that of all that is not tagged; leave out the network's VLAN where the "
            "physical network does not tag it, or give the bridge another vlan_default_pvid"
        )
    if _is_own(bridge) and not filtering.is_on and (beside := _tagged_over(bridge, links)):
        return (
            f"and {', '.join(beside)} over {bridge.name} would hear nothing any more if that kept VLANs apart; put "
            "it over the uplink instead"
        )
    if _is_own(bridge) and filtering.untagged:
        return None
    if _is_own(bridge):
        return (
            f"and to keep VLANs apart in {bridge.name} would cut the node off, since what is not tagged is in none "
            f"there; `ip link set {bridge.name} type bridge vlan_default_pvid 1`"
        )
    if not filtering.is_on:
        return (
            f"and {bridge.name}, which is not vmfabric's, keeps no VLANs apart; "
            f"`ip link set {bridge.name} type bridge vlan_filtering 1`, and put its uplink into the VLAN"
        )
    if not trunks(bridge.name, vlan, strangers):
        return (
            f"and no port of {bridge.name}, which is not vmfabric's, leads to it; "
            f"`bridge vlan add vid {vlan} dev` its uplink"
        )
    return None


def _tagged_over(bridge: Link, links: Collection[Link]) -> list[str]:
    """VLAN devices that hear what comes to the bridge with their tag."""
    return sorted(link.name for link in links if link.over == bridge.index)


def strangers(links: Collection[Link]) -> Collection[Link]:
    """The ports of bridges that are no VM's."""
    return [link for link in links if link.master is not None and not _is_marked(link)]


def trunks(bridge: InterfaceName, vlan: int, ports: Collection[Link]) -> tuple[InterfaceName, ...]:
    """Those of these by which a VLAN is reached, with its tag, from the bridge."""
    return tuple(port.name for port in ports if port.master == bridge and PortVlan(vlan) in port.vlans)


def port_operations(
    port: Port, link: Link | None, actual: Actual, uplink: InterfaceName | None
) -> Iterator[bridges.VlanOperation]:
    """What brings the port into its VLAN, and that to the bridge. `link` is the port as it is; None: not made yet."""
    bridge = None if port.bridge is None else actual.links.get(port.bridge)
    if bridge is None or bridge.filtering is None:
        return
    joins = link is None or link.master != bridge.name
    present = _untagged_in(bridge.filtering.untagged) if link is None or joins else link.vlans
    yield from _changes(port, present, _untagged_in(port.vlan or bridge.filtering.untagged))
    if port.vlan is None or not _is_own(bridge):
        return
    if not bridge.filtering.is_on:
        yield bridges.SetVlanFiltering(port.vm, bridge.name, is_on=True)
    trunk = _port_of(bridge, uplink, actual)
    if trunk is not None and PortVlan(port.vlan) not in trunk.vlans:
        yield bridges.JoinVlan(port.vm, trunk.name, PortVlan(port.vlan))


def bridge_operations(
    ports: Sequence[Port], actual: Actual, uplink: InterfaceName | None
) -> Iterator[bridges.VlanOperation]:
    """What takes the VLANs of VMs that leave from bridges of ours, and from the uplink. The rest there is others'.

    It is done for a VM that leaves: the node itself has not changed.
    """
    for bridge in filter(_is_own, actual.links.values()):
        if bridge.filtering is None:
            continue
        untagged = bridge.filtering.untagged
        here = [port for port in ports if port.bridge == bridge.name]
        wanted = _wanted(bridge, here, actual)
        leaving = {it: port for it, port in _left(here, actual).items() if it not in wanted and it != untagged}
        trunk = _port_of(bridge, uplink, actual)
        others = {it.number for it in trunk.vlans} - {untagged} - leaving.keys() if trunk is not None else set()
        if bridge.filtering.is_on and leaving and untagged and not wanted and not others:
            last = max(leaving.values(), key=lambda port: (port.interface in actual.links, port.vm))
            yield bridges.SetVlanFiltering(last.vm, bridge.name, is_on=False)
        if trunk is None:
            continue
        for vlan in sorted(_untagged_in(untagged) - trunk.vlans):
            yield bridges.JoinVlan(None, trunk.name, vlan)
        for number in sorted(leaving.keys() & {it.number for it in trunk.vlans}):
            yield bridges.LeaveVlans(leaving[number].vm, trunk.name, number, number)


def _left(ports: Sequence[Port], actual: Actual) -> Mapping[int, Port]:
    """The VLANs that VMs go from, or that their ports are in and should not be; of several VMs one still there."""
    going = [port for port in ports if port.vlan is not None and _goes(port)]
    found = {port.vlan: port for port in sorted(going, key=lambda port: port.interface in actual.links) if port.vlan}
    for port in ports:
        link = actual.links.get(port.interface)
        found |= {it.number: port for it in (link.vlans if link is not None else ()) if it.number != port.vlan}
    return found


def _wanted(bridge: Link, ports: Sequence[Port], actual: Actual) -> set[int]:
    """Those of the VMs in it, of those too that nobody speaks of."""
    known = {port.interface for port in ports}
    in_it = [link for link in actual.links.values() if link.master == bridge.name and _is_marked(link)]
    unsaid = {vlan.number for link in in_it if link.name not in known for vlan in link.vlans if vlan.comes_untagged}
    return unsaid | {port.vlan for port in ports if port.vlan is not None and not _goes(port)}


def _changes(
    port: Port, present: frozenset[PortVlan], wanted: frozenset[PortVlan]
) -> Iterator[bridges.VlanOperation]:
    for vlan in sorted(wanted - present):
        yield bridges.JoinVlan(port.vm, port.interface, vlan)
    for first, last in _ranges({it.number for it in present} - {it.number for it in wanted}):
        yield bridges.LeaveVlans(port.vm, port.interface, first, last)


def _ranges(numbers: Collection[int]) -> Iterator[tuple[int, int]]:
    for _, group in groupby(enumerate(sorted(numbers)), key=lambda each: each[1] - each[0]):
        found = [number for _, number in group]
        yield found[0], found[-1]


def _untagged_in(number: int) -> frozenset[PortVlan]:
    """0: in none."""
    return frozenset({PortVlan(number, comes_untagged=True, leaves_untagged=True)} if number else ())


def _port_of(bridge: Link, uplink: InterfaceName | None, actual: Actual) -> Link | None:
    link = None if uplink is None else actual.links.get(uplink)
    return link if link is not None and link.master == bridge.name else None


def _is_own(bridge: Link) -> bool:
    return bridge.kind == LinkKind.BRIDGE and bridge.alias == BRIDGE_ALIAS


def _is_marked(link: Link) -> bool:
    return (link.alias or "").startswith(ALIAS_PREFIX)


def _goes(port: Port) -> bool:
    return port.presence is Presence.ABSENT
