"""The uplink's way into the bridge of a switching node and, when its gateway does not answer there, back.

| phase | what is done | and then |
| --- | --- | --- |
| moving | addresses and routes go to the bridge, the NIC into it; the gateway is asked | confirmed, or returning |
| confirmed | nothing, as long as it stays so | moving, when somebody has changed it |
| returning | all of it goes back to the NIC | taken back |
| taken back | nothing, for some minutes, or until the node's values change or an operator says so | moving |

What the kernel refuses amid the move leads back too; what it refuses on the way back is tried again in each pass.

The phase, what there was before, and the deadline of the move are in a file before anything is changed: a node-agent
that is killed at any moment goes on where it was, and however often it is, a silent gateway is not waited for longer.
"""

from dataclasses import dataclass

from vmfabric.contract.desired import SwitchingNode
from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain import move_journal
from vmfabric.node_agent.domain import operations as do
from vmfabric.node_agent.domain.actual import Actual, Held, Link, LinkKind
from vmfabric.node_agent.domain.move_journal import AGAIN_SECONDS, Journal, Moment, Phase, answered, elsewhere
from vmfabric.node_agent.domain.move_operations import backward, everything, forward, plain, question_of
from vmfabric.node_agent.domain.naming import BRIDGE_ALIAS
from vmfabric.node_agent.domain.neighbour import Question
from vmfabric.node_agent.domain.setup_plan import is_ours

_NOTHING = Held()


@dataclass(frozen=True, slots=True)
class Step:
    """What comes next: the journal is written, then the operations are done, or the question is asked."""

    journal: Journal | None
    operations: tuple[do.Operation, ...] = ()
    question: Question | None = None
    problem: str | None = None
    """Why nothing can be done."""


def next_step(journal: Journal | None, node: SwitchingNode | None, actual: Actual, now: Moment) -> Step:
    """None for a node: its values are not known, or it moves no uplink; what was begun is ended all the same."""
    if journal is not None and journal.phase is Phase.MOVING:
        return _moving(journal, node, actual, now)
    if journal is not None and journal.phase is Phase.RETURNING:
        return _returning(journal, node, actual, now)
    if journal is not None and journal.phase is Phase.CONFIRMED and _goes_elsewhere(journal, node):
        # Two NICs in one bridge are a loop.
        return Step(elsewhere(journal))
    if node is None or node.uplink is None:
        return Step(journal)
    if journal is not None and move_journal.rests(journal, node, now):
        return Step(journal, problem=journal.reason)
    uplink = actual.links.get(node.uplink)
    if uplink is None:
        return Step(journal, problem=_is_gone(node.uplink))
    if _is_attached(uplink, node, actual):
        return _attached(journal, _confirmed(node, uplink, actual, now.boot), actual, now)
    return _begun(journal, node, uplink, actual, now)


def _goes_elsewhere(journal: Journal, node: SwitchingNode | None) -> bool:
    """Whether the uplink leaves its bridge. One that an operator makes his own under the same name stays as it is."""
    if node is None:
        return False
    return node.bridge != journal.node.bridge or node.uplink not in {None, journal.uplink}


def is_other_than(journal: Journal, node: SwitchingNode | None) -> bool:
    """Whether the node should have another uplink or bridge now than what the journal is about."""
    return node is not None and (node.uplink, node.bridge) != (journal.uplink, journal.node.bridge)


def _is_gone(uplink: InterfaceName) -> str:
    return f"the node's uplink should be {uplink}, and there is no such link here; mend `uplink` of the node"


def _moving(journal: Journal, node: SwitchingNode | None, actual: Actual, now: Moment) -> Step:
    if is_other_than(journal, node):
        return Step(elsewhere(journal))
    if journal.uplink not in actual.links:
        return Step(journal, problem=_is_gone(journal.uplink))
    is_late = move_journal.is_late(journal, actual, now)
    todo = tuple(forward(journal, actual))
    if todo:
        return Step(move_journal.interrupted(journal)) if is_late else Step(journal, todo)
    question = question_of(everything(journal, actual), actual.links.get(journal.node.bridge))
    if question is None:
        return Step(answered(journal))
    if is_late:
        return Step(move_journal.unanswered(journal, question, actual, now, was_asked=False))
    return Step(journal, question=question)


def _returning(journal: Journal, node: SwitchingNode | None, actual: Actual, now: Moment) -> Step:
    is_other = is_other_than(journal, node)
    if journal.uplink not in actual.links and not is_other:
        return Step(journal, problem=_is_gone(journal.uplink))
    todo = tuple(backward(journal, actual))
    if todo:
        return Step(journal, todo)
    if is_other:
        return Step(None)
    return Step(journal.model_copy(update={"phase": Phase.TAKEN_BACK, "again_at": now.wall + AGAIN_SECONDS}))


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
    has = plain(actual.held.get(node.bridge, _NOTHING))
    return Journal(phase=Phase.CONFIRMED, node=node, uplink=uplink.name, has=has, boot=boot, was_confirmed=True)


def _attached(journal: Journal | None, fresh: Journal, actual: Actual, now: Moment) -> Step:
    """What is still to be set then cuts nobody off, so nobody is asked, unless the gateway was silent before."""
    if not is_ours(actual.links[fresh.node.bridge], BRIDGE_ALIAS):
        return Step(None)
    todo = tuple(forward(fresh, actual))
    if journal is None or journal.phase is not Phase.CONFIRMED or not journal.reason:
        return Step(fresh, todo)
    still = fresh.model_copy(update={"reason": journal.reason, "again_at": journal.again_at})
    if todo or now.wall < journal.again_at:
        return Step(still, todo, problem=journal.reason)
    question = question_of(fresh.has, actual.links[fresh.node.bridge])
    return Step(fresh) if question is None else Step(still, question=question)


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


def _begun(journal: Journal | None, node: SwitchingNode, uplink: Link, actual: Actual, now: Moment) -> Step:
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
    has = on_uplink | plain(actual.held.get(node.bridge, _NOTHING))
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
                "next hops or attributes that vmfabric cannot move; make it plain, or make the bridge yourself and "
                "set bridge.autosetup to false",
            )
        if sum(it.key == route.key for it in on_uplink.routes) > 1:
            return Step(
                journal,
                problem=f"there are several routes to {route.prefix} with the metric {route.metric} over "
                f"{uplink.name}, of which vmfabric can move one only; give each its own metric, or make the bridge "
                "yourself and set bridge.autosetup to false",
            )
    return Step(move_journal.begun(node, uplink.name, has, now, was_confirmed=was_confirmed))
