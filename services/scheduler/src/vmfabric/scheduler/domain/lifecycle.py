"""The life of a VM, as in docs/architecture.md.

| phase | presence | waits for | then |
| --- | --- | --- | --- |
| allocating | none | ip.allocated (ip.refused ends it) | wiring |
| wiring | routed | iface.ready and route.announced | ready |
| ready | routed | | |
| withdrawing | wired | route.withdrawn | unwiring |
| unwiring | absent | iface.removed | releasing |
| releasing | absent | ip.released | gone |

A function takes a record and what happened, and returns a Turn: the record as it is now, and what to tell the world.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from vmfabric.contract.admin import VmPhase
from vmfabric.contract.cluster import ClusterSpec
from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.contract.errors import Code
from vmfabric.contract.iface import IfaceReady, IfaceRemoved
from vmfabric.contract.ip import IpAllocated, IpRefused, IpReleased
from vmfabric.contract.model import Event
from vmfabric.contract.route import RouteAnnounced, RouteWithdrawn
from vmfabric.contract.vm import StepTimes, VmDeleted, VmDeleting, VmFailed, VmPlaced, VmReady
from vmfabric.scheduler.domain.deadlines import Patience
from vmfabric.scheduler.domain.record import Failure, Stamp, VmRecord

VmFact = IpAllocated | IpRefused | IpReleased | IfaceReady | IfaceRemoved | RouteAnnounced | RouteWithdrawn

STEP: Mapping[VmPhase, str] = {
    VmPhase.ALLOCATING: "allocate",
    VmPhase.WIRING: "wire",
    VmPhase.WITHDRAWING: "withdraw",
    VmPhase.UNWIRING: "unwire",
    VmPhase.RELEASING: "release",
}
"""The step that a failure in this phase names."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What follows from something that happened."""

    record: VmRecord | None
    """None: nothing of the VM is left."""
    events: tuple[Event, ...] = ()
    puts: tuple[DesiredVm, ...] = ()
    purges: tuple[str, ...] = ()


def place(record: VmRecord) -> Turn:
    """A VM has just been given a node."""
    return Turn(record, events=(_placed(record),))


def advance(record: VmRecord, fact: VmFact, cluster: ClusterSpec, now: datetime, patience: Patience) -> Turn | None:
    """What a fact changes; None when it changes nothing: of another generation, repeated, or not waited for."""
    if fact.generation != record.generation:
        return None
    match record.phase, fact:
        case VmPhase.ALLOCATING, IpAllocated():
            return _allocated(record, fact, cluster, now, patience)
        case VmPhase.ALLOCATING, IpRefused():
            failure = Failure(step="allocate", code=fact.code, message=fact.message)
            return _go_back(record.model_copy(update={"failure": failure}), now, patience)
        case VmPhase.WIRING, IfaceReady() if record.steps.wired is None:
            return _up(record, {"wired": now}, now, patience)
        case VmPhase.WIRING, RouteAnnounced() if record.steps.announced is None:
            return _up(record, {"announced": now}, now, patience)
        case VmPhase.WITHDRAWING, RouteWithdrawn():
            return _wanting(_enter(record, VmPhase.UNWIRING, now, patience), Presence.ABSENT)
        case VmPhase.UNWIRING, IfaceRemoved():
            return Turn(_enter(record, VmPhase.RELEASING, now, patience))
        case VmPhase.RELEASING, IpReleased():
            return _ended(record)
        case _:
            return None


def delete(record: VmRecord, asked: Stamp, now: datetime, patience: Patience) -> Turn:
    """Somebody asked for its removal."""
    wanted = record.model_copy(update={"delete_requested": True, "last_request": asked})
    return Turn(wanted) if record.going_back else _go_back(wanted, now, patience)


def overdue(record: VmRecord, now: datetime, patience: Patience) -> Turn | None:
    """What to do when an answer is late; None when it is not."""
    waiting = record.waiting
    if waiting.deadline is not None and now >= waiting.deadline:
        return _report_held(record) if record.going_back else _give_up(record, now, patience)
    if waiting.ask_at is None or now < waiting.ask_at:
        return None
    asked = record.model_copy(update={"waiting": patience.asked_again(waiting, now)})
    match record.phase:
        case VmPhase.ALLOCATING:
            return Turn(asked, events=(_placed(asked),))
        case VmPhase.RELEASING:
            # Desired again too: ipam may have missed that the node let go, which the node says for each new revision.
            return Turn(asked, events=(_deleting(asked),), puts=_desired(asked))
        case _:
            return Turn(asked, puts=_desired(asked))


def waits_for(record: VmRecord) -> str | None:
    """The fact that the record waits for, in an operator's words."""
    match record.phase:
        case VmPhase.ALLOCATING:
            return "ip.allocated from ipam"
        case VmPhase.WIRING if record.steps.wired is None:
            return f"iface.ready from the node-agent of {record.node}"
        case VmPhase.WIRING:
            return f"route.announced from the bgp-announcer of {record.node}"
        case VmPhase.READY:
            return None
        case VmPhase.WITHDRAWING:
            return f"route.withdrawn from the bgp-announcer of {record.node}"
        case VmPhase.UNWIRING:
            return f"iface.removed from the node-agent of {record.node}"
        case VmPhase.RELEASING:
            return "ip.released from ipam"


def ready(record: VmRecord) -> VmReady:
    """The answer to whoever asked for the VM."""
    steps = record.steps

    def milliseconds(moment: datetime | None) -> float:
        return round(((moment or record.created_at) - record.created_at).total_seconds() * 1000, 3)

    return VmReady(
        cluster=record.cluster,
        vm=record.vm,
        node=record.node,
        generation=record.generation,
        addresses=record.addresses,
        steps_ms=StepTimes(
            placed=milliseconds(steps.placed),
            allocated=milliseconds(steps.allocated),
            wired=milliseconds(steps.wired),
            announced=milliseconds(steps.announced),
        ),
    )


def _allocated(record: VmRecord, fact: IpAllocated, cluster: ClusterSpec, now: datetime, patience: Patience) -> Turn:
    desired = DesiredVm(
        cluster=record.cluster,
        node=record.node,
        vm=record.vm,
        generation=record.generation,
        presence=Presence.ROUTED,
        mac=record.mac,
        addresses=tuple(allocated.address for allocated in fact.addresses),
        virtualization=cluster.virtualization,
        gateway=cluster.gateway,
        mtu=cluster.mtu,
        trace_id=record.trace_id,
    )
    steps = record.steps.model_copy(update={"allocated": now})
    wiring = _enter(record, VmPhase.WIRING, now, patience)
    held = wiring.model_copy(update={"addresses": fact.addresses, "desired": desired, "steps": steps})
    return Turn(held, puts=(desired,))


def _up(record: VmRecord, done: dict[str, datetime], now: datetime, patience: Patience) -> Turn:
    stepped = record.model_copy(update={"steps": record.steps.model_copy(update=done)})
    if stepped.steps.wired is None or stepped.steps.announced is None:
        return Turn(stepped)
    up = stepped.model_copy(update={"phase": VmPhase.READY, "waiting": patience.rest(now)})
    return Turn(up, events=(ready(up),))


def _give_up(record: VmRecord, now: datetime, patience: Patience) -> Turn:
    waited = round((now - record.waiting.since).total_seconds())
    failure = Failure(
        step=_step(record),
        code=Code.STEP_TIMED_OUT,
        message=f"waited {waited} s for {waits_for(record)}: is it running, and does it reach the bus?",
    )
    return _go_back(record.model_copy(update={"failure": failure}), now, patience)


def _go_back(record: VmRecord, now: datetime, patience: Patience) -> Turn:
    if record.desired is None:
        releasing = _enter(record, VmPhase.RELEASING, now, patience)
        return Turn(releasing, events=(_deleting(releasing),))
    turn = _wanting(_enter(record, VmPhase.WITHDRAWING, now, patience), Presence.WIRED)
    return Turn(turn.record, events=(_deleting(record),), puts=turn.puts)


def _report_held(record: VmRecord) -> Turn:
    """Say once that the way back takes too long, and go on asking: a time-out frees nothing."""
    quiet = record.waiting.model_copy(update={"deadline": None})
    addresses = [allocated.address for allocated in record.addresses]
    said = VmFailed(
        cluster=record.cluster,
        vm=record.vm,
        generation=record.generation,
        step=_step(record),
        code=Code.STEP_TIMED_OUT,
        message=f"still waiting for {waits_for(record)}; until then its addresses stay its own",
        held=tuple(addresses),
    )
    return Turn(record.model_copy(update={"waiting": quiet, "reported": True}), events=(said,))


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


def _enter(record: VmRecord, phase: VmPhase, now: datetime, patience: Patience) -> VmRecord:
    waiting = patience.begin(now)
    if record.reported:
        waiting = waiting.model_copy(update={"deadline": None})
    return record.model_copy(update={"phase": phase, "waiting": waiting})


def _wanting(record: VmRecord, presence: Presence) -> Turn:
    desired = record.wanted(presence)
    return Turn(record.model_copy(update={"desired": desired}), puts=(desired,))


def _desired(record: VmRecord) -> tuple[DesiredVm, ...]:
    return () if record.desired is None else (record.desired,)


def _step(record: VmRecord) -> str:
    if record.phase is VmPhase.WIRING and record.steps.wired is not None:
        return "announce"
    return STEP[record.phase]


def _placed(record: VmRecord) -> VmPlaced:
    return VmPlaced(
        cluster=record.cluster,
        vm=record.vm,
        node=record.node,
        generation=record.generation,
        mac=record.mac,
        addresses=record.request.addresses,
    )


def _deleting(record: VmRecord) -> VmDeleting:
    return VmDeleting(
        cluster=record.cluster,
        vm=record.vm,
        node=record.node,
        generation=record.generation,
        wired=record.desired is not None,
    )
