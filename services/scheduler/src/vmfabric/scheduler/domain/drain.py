"""A node is drained: nothing is placed on it, and what can move is asked to, a few at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from vmfabric.contract.admin import VmPhase
from vmfabric.contract.cluster import ClusterSpec
from vmfabric.contract.names import NodeName, VmName
from vmfabric.contract.node import StayingVm
from vmfabric.scheduler.domain.candidate import Candidate, Wish
from vmfabric.scheduler.domain.placement import choose
from vmfabric.scheduler.domain.record import VmRecord

_ASK_AGAIN = timedelta(seconds=30)
_SAID = 100
"""VMs that an event names."""
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
    said: Progress | None = None
    drained: bool = False


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
    parallel: int,
    asked: Mapping[VmName, datetime],
    now: datetime,
    cluster: ClusterSpec,
    candidates: Sequence[Candidate],
) -> Round:
    """`records` are the VMs that take room on the node; `asked` says when each was last asked to move."""
    moving = sum(record.move is not None for record in records)
    here = [record for record in records if record.node == node and record.phase is VmPhase.READY]
    staying = {record.vm: "its request asks for this node" for record in here if record.request.node == node}
    begun = {vm for vm, at in asked.items() if now - at < _ASK_AGAIN}
    movable = [record for record in here if record.vm not in staying and record.vm not in begun]
    # One that never moves does not stand in the way of the others.
    movable.sort(key=lambda record: (record.vm in asked, asked.get(record.vm, now), record.vm))
    others = [candidate for candidate in candidates if candidate.name != node]
    moves: list[VmName] = []
    for record in movable[:_LOOKED_AT]:
        decision = choose(Wish(record.request.size, None), others, cluster.placement)
        if decision.node is None:
            staying[record.vm] = "no other node takes it: " + "; ".join(
                f"{name}: {reason}" for name, reason in sorted(decision.refusals.items())[:5]
            )
        else:
            moves.append(record.vm)
    said = tuple(StayingVm(vm=vm, reason=reason) for vm, reason in sorted(staying.items())[:_SAID])
    progress = Progress(left=len(records), moving=moving, staying=said)
    busy = moving + sum(record.vm in begun for record in here)
    return Round(progress, tuple(moves[: max(parallel - busy, 0)]))
