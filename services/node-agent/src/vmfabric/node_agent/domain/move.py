"""The uplink's way into the bridge of a switching node and, when its gateway does not answer there, back.

| phase | what is done | and then |
| --- | --- | --- |
| moving | addresses and routes go to the bridge, the NIC into it; the gateway is asked | confirmed, or returning |
| confirmed | nothing, as long as it stays so | moving, when somebody has changed it |
| returning | all of it goes back to the NIC | taken back |
| taken back | nothing, for some minutes or until the node's values change | moving |

What the kernel refuses amid the move leads back too; what it refuses on the way back is tried again in each pass.

The phase, and what there was before, is in a file before anything is changed: a node-agent that is killed at any
moment goes on where it was.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from vmfabric.contract.desired import SwitchingNode
from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain import bridge_operations as bridges
from vmfabric.node_agent.domain import held
from vmfabric.node_agent.domain import operations as do
from vmfabric.node_agent.domain.actual import Actual, Held, HeldAddress, Link, LinkKind
from vmfabric.node_agent.domain.naming import BRIDGE_ALIAS
from vmfabric.node_agent.domain.neighbour import Question
from vmfabric.node_agent.domain.setup_plan import BRIDGE_SETTINGS, is_ours

AGAIN_SECONDS = 300.0
"""How long after it was taken back it is tried again."""

_NOTHING = Held()


class Phase(StrEnum):
    """How far it is; see the table."""

    MOVING = "moving"
    CONFIRMED = "confirmed"
    RETURNING = "returning"
    TAKEN_BACK = "taken-back"


class Journal(BaseModel):
    """What has to be known after a crash."""

    model_config = ConfigDict(frozen=True)

    phase: Phase
    node: SwitchingNode
    """What was wanted when it began."""
    uplink: InterfaceName
    has: Held
    """The addresses and routes that belong to the node, wherever they are."""
    reason: str = ""
    """Why it was taken back."""
    again_at: float = 0.0
    """When it is tried once more, in seconds since 1970."""
    boot: str = ""
    """Of the kernel that had it so."""
    was_confirmed: bool = False
    """Whether its gateway has answered before, with the same NIC in the same bridge."""


@dataclass(frozen=True, slots=True)
class Step:
    """What comes next: the journal is written, then the operations are done, or the question is asked."""

    journal: Journal | None
    operations: tuple[do.Operation, ...] = ()
    question: Question | None = None
    problem: str | None = None
    """Why nothing can be done."""


def of_boot(journal: Journal, boot: str) -> Journal | None:
    """After a reboot all is as the operator's configuration has it: what there was before must not come back."""
    if journal.boot == boot or journal.phase is Phase.TAKEN_BACK:
        return journal
    if journal.phase is Phase.CONFIRMED:
        return journal.model_copy(update={"has": _NOTHING, "boot": boot})
    return None


def next_step(journal: Journal | None, node: SwitchingNode | None, actual: Actual, now: float, boot: str) -> Step:
    """None for a node: its values are not known, or it moves no uplink; what was begun is ended all the same."""
    if journal is not None and journal.phase is Phase.MOVING:
        return _moving(journal, node, actual)
    if journal is not None and journal.phase is Phase.RETURNING:
        return _returning(journal, node, actual, now)
    if node is None or node.uplink is None:
        return Step(journal)
    if journal is not None and journal.phase is Phase.TAKEN_BACK and journal.node == node and now < journal.again_at:
        return Step(journal, problem=journal.reason)
    if journal is not None and journal.phase is Phase.CONFIRMED and _is_other(journal, node):
        # Two NICs in one bridge are a loop.
        return Step(_elsewhere(journal))
    uplink = actual.links.get(node.uplink)
    if uplink is None:
        return Step(journal, problem=_is_gone(node.uplink))
    if _is_attached(uplink, node, actual):
        return _attached(journal, _confirmed(node, uplink, actual, boot), actual, now)
    return _begun(journal, node, uplink, actual, boot)


def answered(journal: Journal) -> Journal:
    """The gateway is there, or there is none to ask."""
    return journal.model_copy(update={"phase": Phase.CONFIRMED, "reason": "", "again_at": 0.0})


def unanswered(journal: Journal, question: Question, actual: Actual, now: float) -> Journal:
    """It was silent for too long."""
    silent = (
        f"{journal.uplink} was moved into {journal.node.bridge}, where the gateway {question.target} did not answer "
        f"within {journal.node.confirm_seconds} s, "
    )
    if journal.phase is Phase.CONFIRMED or (journal.was_confirmed and _has_guests(journal, actual)):
        reason = (
            f"{silent}and where it stays, since the gateway has answered there before; is the gateway down? It is "
            f"asked again every {AGAIN_SECONDS / 60:.0f} minutes"
        )
        return journal.model_copy(
            update={"phase": Phase.CONFIRMED, "reason": reason, "again_at": now + AGAIN_SECONDS}
        )
    return _back(journal, f"{silent}so all of it was taken back; is there port security or a VLAN on the switch?")


def failed(journal: Journal, found: str) -> Journal:
    """It is not ended: half of it would cut the node off."""
    if journal.phase is not Phase.MOVING:
        return journal
    return _back(
        journal,
        f"{journal.uplink} was on its way into {journal.node.bridge} when this was in the way: {found}; so all of it "
        "was taken back.",
    )


def _back(journal: Journal, found: str) -> Journal:
    reason = f"{found} It is tried again when the node's values change, and every {AGAIN_SECONDS / 60:.0f} minutes"
    return journal.model_copy(update={"phase": Phase.RETURNING, "reason": reason})


def _is_other(journal: Journal, node: SwitchingNode | None) -> bool:
    return node is not None and (node.uplink, node.bridge) != (journal.uplink, journal.node.bridge)


def _elsewhere(journal: Journal) -> Journal:
    reason = f"{journal.uplink} should not be in {journal.node.bridge} any more"
    return journal.model_copy(update={"phase": Phase.RETURNING, "reason": reason})


def _has_guests(journal: Journal, actual: Actual) -> bool:
    bridge, uplink = journal.node.bridge, journal.uplink
    return any(link.master == bridge for link in actual.links.values() if link.name != uplink)


def _is_gone(uplink: InterfaceName) -> str:
    return f"the node's uplink should be {uplink}, and there is no such link here; mend `uplink` of the node"


def _moving(journal: Journal, node: SwitchingNode | None, actual: Actual) -> Step:
    if _is_other(journal, node):
        return Step(_elsewhere(journal))
    if journal.uplink not in actual.links:
        return Step(journal, problem=_is_gone(journal.uplink))
    todo = tuple(_forward(journal, actual))
    if todo:
        return Step(journal, todo)
    question = _question(_all(journal, actual), actual.links.get(journal.node.bridge))
    return Step(answered(journal)) if question is None else Step(journal, question=question)


def _returning(journal: Journal, node: SwitchingNode | None, actual: Actual, now: float) -> Step:
    taken_back = journal.model_copy(update={"phase": Phase.TAKEN_BACK, "again_at": now + AGAIN_SECONDS})
    if journal.uplink not in actual.links and _is_other(journal, node):
        return Step(taken_back)
    if journal.uplink not in actual.links:
        return Step(journal, problem=_is_gone(journal.uplink))
    todo = tuple(_backward(journal, actual))
    if todo:
        return Step(journal, todo)
    return Step(taken_back)


def _is_attached(uplink: Link, node: SwitchingNode, actual: Actual) -> bool:
    bridge = actual.links.get(node.bridge)
    return (
        bridge is not None
        and bridge.kind == LinkKind.BRIDGE
        and uplink.master == bridge.name
        and bridge.up
        and uplink.up
        and actual.held.get(uplink.name, _NOTHING) == _NOTHING
        and (not is_ours(bridge, BRIDGE_ALIAS) or _has_address(actual.held.get(bridge.name, _NOTHING), node))
    )


def _has_address(has: Held, node: SwitchingNode) -> bool:
    return any(it.address.ip == node.address for it in has.addresses)


def _confirmed(node: SwitchingNode, uplink: Link, actual: Actual, boot: str) -> Journal:
    has = _plain(actual.held.get(node.bridge, _NOTHING))
    return Journal(phase=Phase.CONFIRMED, node=node, uplink=uplink.name, has=has, boot=boot, was_confirmed=True)


def _attached(journal: Journal | None, fresh: Journal, actual: Actual, now: float) -> Step:
    """What is still to be set then cuts nobody off, so nobody is asked, unless the gateway was silent before."""
    if not is_ours(actual.links[fresh.node.bridge], BRIDGE_ALIAS):
        return Step(None)
    todo = tuple(_forward(fresh, actual))
    if journal is None or journal.phase is not Phase.CONFIRMED or not journal.reason:
        return Step(fresh, todo)
    still = fresh.model_copy(update={"reason": journal.reason, "again_at": journal.again_at})
    if todo or now < journal.again_at:
        return Step(still, todo, problem=journal.reason)
    question = _question(fresh.has, actual.links[fresh.node.bridge])
    return Step(fresh) if question is None else Step(still, question=question)


def _plain(has: Held) -> Held:
    return Held(has.addresses, tuple(it for it in has.routes if it.is_plain))


def _lost(journal: Journal, has: Held, node: SwitchingNode, actual: Actual) -> Held:
    """What the node had when it was confirmed, and somebody or the kernel has taken since."""
    if not all(link is not None and link.up for link in map(actual.links.get, (journal.uplink, node.bridge))):
        return journal.has
    if _has_address(has, node):
        return _NOTHING
    return Held(
        tuple(it for it in journal.has.addresses if it.address.ip == node.address),
        tuple(it for it in journal.has.routes if it.prefix.prefixlen == 0),
    )


def _begun(journal: Journal | None, node: SwitchingNode, uplink: Link, actual: Actual, boot: str) -> Step:
    bridge = actual.links.get(node.bridge)
    if bridge is not None and not (bridge.kind == LinkKind.BRIDGE and is_ours(bridge, BRIDGE_ALIAS)):
        return Step(
            journal,
            problem=f"{bridge.name} is there, is not vmfabric's (kind {bridge.kind}, alias {bridge.alias}) and has "
            f"not all that is {uplink.name}'s; put {uplink.name} with its addresses into it, and set autosetup "
            "to false, or name another bridge in the cluster",
        )
    if uplink.master not in {None, node.bridge}:
        return Step(
            journal,
            problem=f"the uplink {uplink.name} is in {uplink.master} already; name that one as the cluster's bridge, "
            f"with autosetup false, or `ip link set {uplink.name} nomaster`",
        )
    on_uplink = actual.held.get(uplink.name, _NOTHING)
    has = on_uplink | _plain(actual.held.get(node.bridge, _NOTHING))
    was_confirmed = journal is not None and journal.phase is Phase.CONFIRMED
    if journal is not None and was_confirmed:
        has = has | _lost(journal, has, node, actual)
    if not _has_address(has, node):
        found = ", ".join(str(it.address) for it in has.addresses) or "none"
        return Step(
            journal,
            problem=f"the node's address {node.address} should be on its uplink {uplink.name}, which has {found}; "
            "mend `address` or `uplink` of the node, or give the NIC its address",
        )
    for route in on_uplink.routes:
        if not route.is_plain:
            return Step(
                journal,
                problem=f"the route to {route.prefix} over {uplink.name} is not in the main table, or has several "
                "next hops or attributes that vmfabric cannot move; make it plain, or make the bridge yourself and set "
                "bridge.autosetup to false",
            )
        if sum(it.key == route.key for it in on_uplink.routes) > 1:
            return Step(
                journal,
                problem=f"there are several routes to {route.prefix} with the metric {route.metric} over "
                f"{uplink.name}, of which vmfabric can move one only; give each its own metric, or make the bridge "
                "yourself and set bridge.autosetup to false",
            )
    begun = Journal(phase=Phase.MOVING, node=node, uplink=uplink.name, has=has, boot=boot)
    return Step(begun.model_copy(update={"was_confirmed": was_confirmed}))


def _all(journal: Journal, actual: Actual) -> Held:
    on_both = (actual.held.get(name, _NOTHING) for name in (journal.uplink, journal.node.bridge))
    has = journal.has
    for it in on_both:
        has = has | _plain(it)
    return has


def _forward(journal: Journal, actual: Actual) -> Iterator[do.Operation]:
    name, uplink = journal.node.bridge, actual.links.get(journal.uplink)
    if uplink is None or uplink.mac is None:
        return
    yield from _bridge(name, actual.links.get(name), uplink)
    if not uplink.up:
        yield do.SetUp(None, uplink.name)
    if uplink.master != name:
        yield bridges.SetMaster(None, uplink.name, name)
    yield from _carried(_all(journal, actual), uplink.name, name, actual)


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


def _backward(journal: Journal, actual: Actual) -> Iterator[do.Operation]:
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
    yield from _carried(_all(journal, actual), name, uplink.name, actual)
    if bridge is None or not is_ours(bridge, BRIDGE_ALIAS):
        return
    if not any(link.master == name for link in actual.links.values() if link.name != uplink.name):
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


def _question(has: Held, bridge: Link | None) -> Question | None:
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
