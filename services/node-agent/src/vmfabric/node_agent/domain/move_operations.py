"""What is to be done so that an uplink's addresses and routes are on its bridge, or on the uplink again."""

from collections.abc import Iterator

from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain import bridge_operations as bridges
from vmfabric.node_agent.domain import held
from vmfabric.node_agent.domain import operations as do
from vmfabric.node_agent.domain.actual import Actual, Held, HeldAddress, Link
from vmfabric.node_agent.domain.move_journal import Journal, has_guests
from vmfabric.node_agent.domain.naming import BRIDGE_ALIAS
from vmfabric.node_agent.domain.neighbour import Question
from vmfabric.node_agent.domain.setup_plan import BRIDGE_SETTINGS, is_ours

_NOTHING = Held()


def plain(has: Held) -> Held:
    """What of it can be carried."""
    return Held(has.addresses, tuple(it for it in has.routes if it.is_plain))


def everything(journal: Journal, actual: Actual) -> Held:
    """What belongs to the node, wherever it is."""
    on_both = (actual.held.get(name, _NOTHING) for name in (journal.uplink, journal.node.bridge))
    has = journal.has
    for it in on_both:
        has = has | plain(it)
    return has


def forward(journal: Journal, actual: Actual) -> Iterator[do.Operation]:
    """Into the bridge."""
    name, uplink = journal.node.bridge, actual.links.get(journal.uplink)
    if uplink is None or uplink.mac is None:
        return
    yield from _bridge(name, actual.links.get(name), uplink)
    if not uplink.up:
        yield do.SetUp(None, uplink.name)
    if uplink.master != name:
        yield bridges.SetMaster(None, uplink.name, name)
    yield from _carried(everything(journal, actual), uplink.name, name, actual)


def _bridge(name: InterfaceName, bridge: Link | None, uplink: Link) -> Iterator[do.Operation]:
    """With the NIC's MAC address: the switch and the gateway see no difference."""
    mac = uplink.mac or ""
    if bridge is None:
        yield bridges.CreateBridge(None, name, mac)
    elif bridge.mac != mac:
        yield do.SetMac(None, name, mac)
    if bridge is None or bridge.alias != BRIDGE_ALIAS:
        yield do.SetAlias(None, name, BRIDGE_ALIAS)
    if bridge is None or bridge.bridge != BRIDGE_SETTINGS:
        yield bridges.SetBridge(None, name, BRIDGE_SETTINGS)
    if bridge is None or bridge.mtu != uplink.mtu:
        # Once it is set, it does not follow that of the ports.
        yield do.SetMtu(None, name, uplink.mtu)
    if bridge is None or bridge.sysctls.get("ipv6/accept_dad") != 0:
        yield do.SetSysctl(None, name, "ipv6/accept_dad", 0)
    if bridge is None or not bridge.up:
        yield do.SetUp(None, name)


def backward(journal: Journal, actual: Actual) -> Iterator[do.Operation]:
    """Out of it."""
    name, uplink, bridge = (
        journal.node.bridge,
        actual.links.get(journal.uplink),
        actual.links.get(journal.node.bridge),
    )
    if uplink is None:
        return
    if uplink.master == name:
        yield bridges.SetMaster(None, uplink.name, None)
    if not uplink.up:
        yield do.SetUp(None, uplink.name)
    yield from _carried(everything(journal, actual), name, uplink.name, actual)
    if bridge is None or not is_ours(bridge, BRIDGE_ALIAS):
        return
    if not has_guests(journal, actual):
        if bridge.up:
            yield do.SetDown(None, name, bridge.index)
        yield do.DeleteLink(None, name, bridge.index)


def _carried(has: Held, source: InterfaceName, target: InterfaceName, actual: Actual) -> Iterator[do.Operation]:
    """The address stands before the routes that need it, and both before they go: somebody is always reached."""
    there, here = actual.held.get(target, _NOTHING), actual.held.get(source, _NOTHING)
    # Those that gateways are reached by stand before those that have a gateway.
    missing = sorted((it for it in has.routes if it not in there.routes), key=lambda it: it.gateway is not None)
    present = {it.key for it in there.addresses}
    for address in has.addresses:
        if address.key not in present:
            yield held.PutAddress(target, address)
    for route in missing:
        yield held.PutRoute(target, route)
    replaced = {it.key for it in missing}
    for route in here.routes:
        if route.key not in replaced and route.is_plain:
            yield held.TakeRoute(source, route)
    # The first of a network goes last: the kernel takes the others of the network with it.
    for address in reversed(here.addresses):
        yield held.TakeAddress(source, address)


def question_of(has: Held, bridge: Link | None) -> Question | None:
    """To the gateway of the default route; IPv4 first, as the node's own address is of it."""
    defaults = [it for it in has.routes if it.prefix.prefixlen == 0 and it.gateway is not None]
    for route in sorted(defaults, key=lambda it: (it.prefix.version, it.metric)):
        if route.gateway is None:
            continue
        own = list(has.addresses)
        own += [HeldAddress(it) for it in (bridge.addresses if bridge else ()) if it.version == 6]
        own = [it for it in own if it.address.version == route.gateway.version]
        near = [it for it in own if route.gateway in it.network] or own
        if near:
            return Question(route.gateway, near[0].address.ip)
    return None
