"""The life of a VM, as in docs/architecture.md: creation, and which module has the rest.

| phase | presence | waits for | then |
| --- | --- | --- | --- |
| allocating | none | ip.allocated (ip.refused ends it) | wiring |
| wiring | routed | iface.ready and, where the cluster announces, route.announced | ready |
| ready | routed | | |
| wiring after an evacuation | evacuated | the same, without a deadline | ready |
| preparing to returning | | | see `migration` |
| withdrawing to releasing | | | see `removal` |

A function takes a record and what happened, and returns a Turn.
"""

from collections.abc import Mapping
from datetime import datetime

from vmfabric.contract.admin import VmPhase
from vmfabric.contract.cluster import ClusterSpec
from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.iface import IfaceReady, IfaceRemoved
from vmfabric.contract.ip import IpAllocated, IpRefused, IpReleased
from vmfabric.contract.names import NodeName
from vmfabric.contract.route import RouteAnnounced, RouteWithdrawn
from vmfabric.contract.vm import StepTimes, VmFailed, VmPlaced, VmReady
from vmfabric.scheduler.domain import migration, removal
from vmfabric.scheduler.domain.deadlines import Patience
from vmfabric.scheduler.domain.record import Failure, Stamp, VmRecord
from vmfabric.scheduler.domain.turn import Turn, enter, rest
from vmfabric.scheduler.domain.wiring import IN_A_FABRIC, Surroundings, connect

VmFact = IpAllocated | IpRefused | IpReleased | IfaceReady | IfaceRemoved | RouteAnnounced | RouteWithdrawn

STEP: Mapping[VmPhase, str] = {
    VmPhase.ALLOCATING: "allocate",
    VmPhase.WIRING: "wire",
    VmPhase.WITHDRAWING: "withdraw",
    VmPhase.UNWIRING: "unwire",
    VmPhase.RELEASING: "release",
    **dict.fromkeys(migration.PHASES, migration.STEP),
}
"""The step that a failure in this phase names."""


def place(record: VmRecord) -> Turn:
    """A VM has just been given a node."""
    return Turn(record, events=(_placed(record),))


def advance(
    record: VmRecord,
    fact: VmFact,
    cluster: ClusterSpec,
    now: datetime,
    patience: Patience,
    *,
    around: Surroundings = IN_A_FABRIC,
) -> Turn | None:
    """What a fact changes; None when it changes nothing: of another generation, repeated, or not waited for.

    `around` is looked at when addresses are allocated.
    """
    if record.move is not None and isinstance(fact, migration.MoveFact):
        return migration.advance(record, record.move, fact, now, patience)
    if fact.generation != record.generation:
        return None
    match record.phase, fact:
        case VmPhase.ALLOCATING, IpAllocated():
            return _allocated(record, fact, cluster, now, patience, around=around)
        case _, IpAllocated() if record.leased != record.generation:
            return _leased(record, now, patience)
        case VmPhase.ALLOCATING, IpRefused():
            failure = Failure(step="allocate", code=fact.code, message=fact.message)
            return removal.begin(record.model_copy(update={"failure": failure}), now, patience)
        case VmPhase.WIRING, IfaceReady() if record.steps.wired is None:
            return _up(record, {"wired": now}, now, patience)
        case VmPhase.WIRING, RouteAnnounced() if record.steps.announced is None:
            return _up(record, {"announced": now}, now, patience)
        case _, (RouteWithdrawn() | IfaceRemoved() | IpReleased()):
            return removal.advance(record, fact, now, patience)
        case _:
            return None


def delete(record: VmRecord, asked: Stamp, now: datetime, patience: Patience) -> Turn:
    """Somebody asked for its removal. A guest that already runs on another node arrives there first."""
    is_on_its_way = record.phase in removal.PHASES
    wanted = record.model_copy(update={"delete_requested": True, "last_request": asked})
    if record.move is not None:
        if record.phase in migration.BEFORE_THE_SWITCH:
            return migration.give_up(wanted, record.move, migration.cancelled(), now, patience)
        return Turn(wanted)
    return Turn(wanted) if is_on_its_way else removal.begin(wanted, now, patience)


def overdue(record: VmRecord, now: datetime, patience: Patience, *, reason: str | None = None) -> Turn | None:
    """What to do when an answer is late; None when it is not. `reason` is why it is late, if that is known."""
    waiting = record.waiting
    if waiting.is_over(now):
        return _too_late(record, now, patience, reason)
    if waiting.ask_at is None or now < waiting.ask_at:
        return None
    asked = record.model_copy(update={"waiting": patience.asked_again(waiting, now)})
    if record.move is not None:
        return migration.ask_again(asked, record.move)
    match record.phase:
        case VmPhase.ALLOCATING | VmPhase.READY:
            return Turn(asked, events=(_placed(asked),))
        case VmPhase.WIRING if asked.leased != asked.generation:
            return Turn(asked, events=(_placed(asked),), puts=asked.all_desired())
        case VmPhase.RELEASING:
            # Desired again too: ipam may have missed that the node let go, which the node says for each new revision.
            return Turn(asked, events=(removal.deleting(asked),), puts=asked.all_desired())
        case _:
            return Turn(asked, puts=asked.all_desired())


def waits_for(record: VmRecord) -> str | None:
    """The fact that the record waits for, in an operator's words."""
    if record.move is not None:
        return migration.waits_for(record, record.move)
    match record.phase:
        case VmPhase.ALLOCATING:
            return "ip.allocated from ipam"
        case VmPhase.READY if record.leased != record.generation:
            return "ip.allocated from ipam, which has not heard yet where the VM is now"
        case VmPhase.WIRING if record.steps.wired is None:
            return f"iface.ready from the node-agent of {record.node}"
        case VmPhase.WIRING:
            return f"route.announced from the bgp-announcer of {record.node}"
        case VmPhase.WITHDRAWING:
            return f"route.withdrawn from the bgp-announcer of {record.node}"
        case VmPhase.UNWIRING:
            return f"iface.removed from the node-agent of {record.node}"
        case VmPhase.RELEASING:
            return "ip.released from ipam"
        case _:
            return None


def waits_on(record: VmRecord) -> NodeName | None:
    """The node whose services have to say it; None when others have."""
    if record.move is not None:
        return migration.waits_on(record, record.move)
    return record.node if record.phase in {VmPhase.WIRING, VmPhase.WITHDRAWING, VmPhase.UNWIRING} else None


def ready(record: VmRecord) -> VmReady:
    """The answer to whoever asked for the VM."""
    steps = record.steps

    def milliseconds(moment: datetime | None) -> float:
        return round(((moment or record.began_at) - record.began_at).total_seconds() * 1000, 3)

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
            announced=milliseconds(steps.announced) if record.is_announced else None,
        ),
    )


def _allocated(
    record: VmRecord,
    fact: IpAllocated,
    cluster: ClusterSpec,
    now: datetime,
    patience: Patience,
    *,
    around: Surroundings,
) -> Turn:
    try:
        connection = connect(cluster, around, fact.addresses)
    except Refused as error:
        failure = Failure(step="wire", code=error.code, message=error.sentence)
        return removal.begin(record.model_copy(update={"failure": failure}), now, patience)
    desired = DesiredVm(
        cluster=record.cluster,
        node=record.node,
        vm=record.vm,
        generation=record.generation,
        presence=Presence.ROUTED,
        mac=record.mac,
        addresses=tuple(allocated.address for allocated in fact.addresses),
        guest_addresses=connection.guest_addresses,
        delegated=tuple(allocated.prefix for allocated in fact.addresses if allocated.prefix is not None),
        virtualization=cluster.virtualization,
        wiring=connection.wiring,
        mtu=cluster.mtu,
        nameservers=cluster.nameservers,
        bandwidth=record.request.bandwidth,
        guest_config=record.request.guest_config,
        dhcp=record.request.dhcp,
        trace_id=record.trace_id,
    )
    steps = record.steps.model_copy(update={"allocated": now})
    wiring = enter(record, VmPhase.WIRING, now, patience)
    held = wiring.model_copy(
        update={"addresses": fact.addresses, "leased": record.generation, "desired": desired, "steps": steps}
    )
    return Turn(held, puts=(desired,))


def _leased(record: VmRecord, now: datetime, patience: Patience) -> Turn:
    """Ipam has heard where the VM is now."""
    leased = record.model_copy(update={"leased": record.generation})
    return Turn(rest(leased, now, patience) if leased.phase is VmPhase.READY else leased)


def _up(record: VmRecord, done: dict[str, datetime], now: datetime, patience: Patience) -> Turn:
    stepped = record.model_copy(update={"steps": record.steps.model_copy(update=done)})
    if stepped.steps.wired is None or (stepped.is_announced and stepped.steps.announced is None):
        return Turn(stepped)
    up = rest(stepped, now, patience)
    return Turn(up, events=(ready(up),))


def _too_late(record: VmRecord, now: datetime, patience: Patience, reason: str | None) -> Turn:
    waited = round((now - record.waiting.since).total_seconds())
    why = ": is it running, and does it reach the bus?" if reason is None else f". {reason}"
    failure = Failure(
        step=_step(record),
        code=Code.STEP_TIMED_OUT,
        message=f"waited {waited} s for {waits_for(record)}{why}",
    )
    if record.move is not None and record.phase in migration.BEFORE_THE_SWITCH:
        return migration.give_up(record, record.move, failure, now, patience)
    if record.move is not None or record.evacuated or record.phase in removal.PHASES:
        return _report_held(record, reason)
    return removal.begin(record.model_copy(update={"failure": failure}), now, patience)


def _report_held(record: VmRecord, reason: str | None) -> Turn:
    """Say once that it takes too long, and go on asking: a time-out frees nothing."""
    quiet = record.waiting.model_copy(update={"deadline": None})
    held = [allocated.address for allocated in record.addresses] if record.move is None else []
    why = "" if reason is None else f". {reason}"
    said = VmFailed(
        cluster=record.cluster,
        vm=record.vm,
        generation=record.generation,
        step=_step(record),
        code=Code.STEP_TIMED_OUT,
        message=f"still waiting for {waits_for(record)}; until then its addresses stay its own{why}",
        held=tuple(held),
    )
    return Turn(record.model_copy(update={"waiting": quiet, "reported": True}), events=(said,))


def _step(record: VmRecord) -> str:
    if record.phase is VmPhase.WIRING and record.steps.wired is not None:
        return "announce"
    if record.move is not None and record.node == record.move.target:
        return migration.SWITCHED_STEP
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
