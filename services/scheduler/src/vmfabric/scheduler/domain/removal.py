"""The way back, of a delete and of a failure alike.

| phase | presence | waits for | then |
| --- | --- | --- | --- |
| withdrawing, where the cluster announces | wired | route.withdrawn | unwiring |
| unwiring | absent | iface.removed | releasing |
| releasing | absent | ip.released | gone |
"""

from datetime import datetime

from vmfabric.contract.admin import VmPhase
from vmfabric.contract.desired import Presence
from vmfabric.contract.iface import IfaceRemoved
from vmfabric.contract.ip import IpReleased
from vmfabric.contract.model import Event
from vmfabric.contract.route import RouteWithdrawn
from vmfabric.contract.vm import VmDeleted, VmDeleting, VmFailed
from vmfabric.scheduler.domain.deadlines import Patience
from vmfabric.scheduler.domain.record import VmRecord
from vmfabric.scheduler.domain.turn import Turn, enter

PHASES = frozenset({VmPhase.WITHDRAWING, VmPhase.UNWIRING, VmPhase.RELEASING})


def begin(record: VmRecord, now: datetime, patience: Patience) -> Turn:
    """It goes, from wherever it is; no migration is under way."""
    if record.desired is None:
        releasing = enter(record, VmPhase.RELEASING, now, patience)
        return Turn(releasing, events=(deleting(releasing),))
    if record.is_announced:
        turn = _wanting(enter(record, VmPhase.WITHDRAWING, now, patience), Presence.WIRED)
    else:
        turn = _unwiring(record, now, patience)
    return Turn(turn.record, events=(deleting(record),), puts=turn.puts)


def advance(
    record: VmRecord, fact: RouteWithdrawn | IfaceRemoved | IpReleased, now: datetime, patience: Patience
) -> Turn | None:
    """One step further; None when the fact is not the one that is waited for."""
    match record.phase, fact:
        case VmPhase.WITHDRAWING, RouteWithdrawn():
            return _unwiring(record, now, patience)
        case VmPhase.UNWIRING, IfaceRemoved():
            return Turn(enter(record, VmPhase.RELEASING, now, patience))
        case VmPhase.RELEASING, IpReleased():
            return _ended(record)
        case _:
            return None


def deleting(record: VmRecord) -> VmDeleting:
    """What ipam waits for."""
    return VmDeleting(
        cluster=record.cluster,
        vm=record.vm,
        node=record.node,
        generation=record.generation,
        wired=record.desired is not None,
    )


def _unwiring(record: VmRecord, now: datetime, patience: Patience) -> Turn:
    return _wanting(enter(record, VmPhase.UNWIRING, now, patience), Presence.ABSENT)


def _wanting(record: VmRecord, presence: Presence) -> Turn:
    desired = record.wanted(presence)
    return Turn(record.model_copy(update={"desired": desired}), puts=(desired,))


def _ended(record: VmRecord) -> Turn:
    events: list[Event] = []
    if record.failure is not None:
        events.append(
            VmFailed(
                cluster=record.cluster,
                vm=record.vm,
                generation=record.generation,
                step=record.failure.step,
                code=record.failure.code,
                message=record.failure.message,
            )
        )
    if record.delete_requested:
        events.append(VmDeleted(cluster=record.cluster, vm=record.vm, generation=record.generation))
    return Turn(None, events=tuple(events), purges=(record.desired.key(),) if record.desired else ())
