"""A VM leaves a node that is lost, and does so without that node's help.

Whoever asks for it has made sure that the node does not run. What the VM has there becomes `absent` and is left
behind, with a generation of its own, so that what the node said before does not count: it hears that when it returns,
and says that it let go. Until then the VM's route is preferred to what the node may still announce:
a fabric keeps the routes of a dead node for a while (graceful restart, RFC 4724), and a fence may have been wrong.
Where nothing is announced there is nothing to prefer.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from vmfabric.contract.admin import VmPhase
from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.contract.errors import Code
from vmfabric.contract.iface import IfaceReady, IfaceRemoved
from vmfabric.contract.names import NodeName
from vmfabric.contract.route import RouteWithdrawn
from vmfabric.scheduler.domain import lifecycle, migration, removal
from vmfabric.scheduler.domain.deadlines import Patience
from vmfabric.scheduler.domain.record import Failure, LeftBehind, Move, Steps, VmRecord
from vmfabric.scheduler.domain.turn import Turn, enter


class Refuge(NamedTuple):
    """Where the VM goes."""

    node: NodeName
    generation: int


def needs_refuge(record: VmRecord, lost: NodeName) -> bool:
    """Whether another node has to take it."""
    return record.node == lost and not record.going_back


def flee(record: VmRecord, refuge: Refuge, left: int, now: datetime, patience: Patience) -> Turn:
    """Its own node is lost: it begins again on another one, with its addresses. No deadline ends that.

    `left` is the generation of what it leaves behind.
    """
    begun = record.model_copy(
        update={
            "node": refuge.node,
            "generation": refuge.generation,
            "began_at": now,
            "steps": Steps(placed=now),
            "move": None,
            "reported": False,
        }
    )
    if record.desired is None:
        return lifecycle.place(enter(begun, VmPhase.ALLOCATING, now, patience))
    desired = record.desired.model_copy(
        update={
            "node": refuge.node,
            "generation": refuge.generation,
            "presence": Presence.EVACUATED if record.is_announced else Presence.ROUTED,
            "toward": (),
            "trace_id": record.trace_id,
        }
    )
    wired = enter(
        begun.model_copy(update={"desired": desired, "evacuated": True, "steps": Steps(placed=now, allocated=now)}),
        VmPhase.WIRING,
        now,
        patience,
    )
    placed = lifecycle.place(wired)
    # Another node may have it too, when it was on its way.
    others = [value for value in record.all_desired() if value.node != refuge.node]
    return Turn(placed.record, placed.events, puts=(desired,), left_behind=_absent(others, left))


def abandon(record: VmRecord, lost: NodeName, left: int, now: datetime, patience: Patience) -> Turn | None:
    """It needs no other node: it is being removed, or only came from the lost node, or was on its way there."""
    if record.node == lost:
        return _released(record, left, now, patience)
    move = record.move
    if move is None or move.desired.node != lost or move.is_gone:
        return None
    gone = move.model_copy(update={"withdrawn": True, "unwired": True})
    match record.phase:
        case VmPhase.SWITCHING:
            turn = Turn(record.model_copy(update={"move": gone, "evacuated": True}))
        case VmPhase.LEAVING:
            turn = migration.settle(record.model_copy(update={"evacuated": True}), gone, now, patience)
        case _:
            where = f"{record.vm} is on {record.node} as before"
            turn = migration.stay(record, _given_up(gone, lost), where, now, patience)
    return Turn(turn.record, turn.events, turn.puts, left_behind=_absent((move.desired,), left))


def hears(left: LeftBehind, fact: IfaceReady | IfaceRemoved | RouteWithdrawn) -> LeftBehind:
    """What is left of it when its node says this; one that speaks of a generation has let go of every older one."""
    desired = left.desired
    if fact.node != desired.node or fact.generation < desired.generation:
        return left
    match fact:
        case RouteWithdrawn():
            return left.model_copy(update={"withdrawn": True})
        case IfaceRemoved():
            return left.model_copy(update={"unwired": True})
        case _:
            # It has come back to this node meanwhile.
            return left.model_copy(update={"withdrawn": True, "unwired": True})


def forgotten(left: LeftBehind, node: NodeName) -> LeftBehind:
    """What is left of it when this node does not come back."""
    return left.model_copy(update={"withdrawn": True, "unwired": True}) if left.desired.node == node else left


def let_go(record: VmRecord) -> Turn:
    """No lost node has anything of it any more."""
    free = record.model_copy(update={"evacuated": False})
    if free.desired is None or free.desired.presence is not Presence.EVACUATED:
        return Turn(free)
    routed = free.wanted(Presence.ROUTED)
    return Turn(free.model_copy(update={"desired": routed}), puts=(routed,))


def _released(record: VmRecord, left: int, now: datetime, patience: Patience) -> Turn | None:
    if record.phase is VmPhase.RELEASING:
        return None
    away = record.model_copy(update={"desired": None, "move": None})
    releasing = enter(away, VmPhase.RELEASING, now, patience)
    # ipam may know an older generation only: it hears of this one first, and then that no node will let it go.
    events = (removal.deleting(record), removal.deleting(releasing))
    return Turn(releasing, events=events, left_behind=_absent(record.all_desired(), left))


def _given_up(move: Move, lost: NodeName) -> Move:
    failure = Failure(step=migration.STEP, code=Code.NODE_LOST, message=f"{lost} is lost, and was evacuated")
    return move.model_copy(update={"failure": move.failure or failure})


def _absent(values: Iterable[DesiredVm], generation: int) -> tuple[DesiredVm, ...]:
    absence = {"presence": Presence.ABSENT, "toward": (), "generation": generation}
    return tuple(value.model_copy(update=absence) for value in values)
