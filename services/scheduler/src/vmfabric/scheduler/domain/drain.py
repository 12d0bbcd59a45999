"""A node is emptied: nothing is placed on it. What can move from it is asked to, a few at a time; a node that is lost
and fenced is left without its help.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from vmfabric.contract.admin import VmPhase
from vmfabric.contract.cluster import ClusterSpec
from vmfabric.contract.names import NodeName, VmName
from vmfabric.contract.node import StayingVm
from vmfabric.scheduler.domain.migration import why_bound
from vmfabric.scheduler.domain.placement import Market
from vmfabric.scheduler.domain.record import VmRecord
from vmfabric.scheduler.domain.wish import wish_of

_ASK_AGAIN = timedelta(seconds=30)
_PARALLEL = 4
"""Migrations at once, should the node return before it is empty."""
_SAID = 100
"""VMs that an event names."""
_LOST = "the node is lost, and cannot hand it over; node.evacuate, when the node surely does not run"
_LOOKED_AT = 50
"""VMs that are placed in a round, for show: the others wait for their turn."""


class Progress(BaseModel):
    """How far it is."""

    model_config = ConfigDict(frozen=True)

    left: int
    moving: int
    staying: tuple[StayingVm, ...]


class Drain(BaseModel):
    """What an operator asked for, and what was said of it last."""

    model_config = ConfigDict(frozen=True)

    since: datetime
    trace_id: str
    going_down: bool
    parallel: int
    fence: str | None = None
    """What made sure that the node, which is lost, does not run: it is evacuated. It speaks of this one loss."""
    said: Progress | None = None
    drained: bool = False


def evacuation(fence: str, before: Drain | None, trace_id: str, now: datetime) -> Drain:
    """What is wanted of a lost node that does not run."""
    if before is None:
        return Drain(since=now, trace_id=trace_id, going_down=False, parallel=_PARALLEL, fence=fence)
    return before.model_copy(update={"fence": fence, "drained": False})


@dataclass(frozen=True, slots=True)
class Round:
    """What a look at the node says."""

    progress: Progress
    moves: tuple[VmName, ...]
    """VMs to be moved now, in this order."""


def look(
    node: NodeName,
    records: Sequence[VmRecord],
    *,
    drain: Drain,
    is_lost: bool,
    asked: Mapping[VmName, datetime],
    now: datetime,
    cluster: ClusterSpec,
    market: Market,
    members: Collection[VmRecord],
) -> Round:
    """`records` are the VMs that take room on the node, `members` those of their groups; `asked` says when each was
    last asked to move.
    """
    moving = sum(record.move is not None for record in records)
    here = [record for record in records if record.node == node and record.phase is VmPhase.READY]
    staying = {record.vm: "its request asks for this node" for record in here if record.request.node == node}
    if is_lost and drain.fence is None:
        staying |= dict.fromkeys((record.vm for record in here), _LOST)
    if (bound := why_bound(cluster, node)) is not None:
        staying |= dict.fromkeys((record.vm for record in here), bound)
    begun = {vm for vm, at in asked.items() if now - at < _ASK_AGAIN}
    movable = [record for record in here if record.vm not in staying and record.vm not in begun]
    # One that never moves does not stand in the way of the others.
    movable.sort(key=lambda record: (record.vm in asked, asked.get(record.vm, now), record.vm))
    drained = market.drained | {node}
    moves: list[VmName] = []
    for record in movable[:_LOOKED_AT]:
        wish = wish_of(record.request, cluster, members, drained=drained, node=None, leaves=node)
        decision = market.choose(wish)
        if decision.node is None:
            staying[record.vm] = "no other node takes it: " + "; ".join(
                f"{name}: {reason}" for name, reason in sorted(decision.refusals.items())[:6] if name != node
            )
        else:
            moves.append(record.vm)
    said = tuple(StayingVm(vm=vm, reason=reason) for vm, reason in sorted(staying.items())[:_SAID])
    progress = Progress(left=len(records), moving=moving, staying=said)
    busy = moving + sum(record.vm in begun for record in here)
    return Round(progress, tuple(moves[: max(drain.parallel - busy, 0)]))
