"""A VM moves to another node, make-before-break.

| phase | home | the other node | waits for | then |
| --- | --- | --- | --- | --- |
| preparing | source: routed | target: prepared | iface.ready of the target | moving |
| moving | source: routed | target: prepared | guest.running on the target | switching |
| switching | target: preferred | source: forwarded | route.announced of the target | leaving |
| leaving | target: preferred | source: forwarded, absent | route.withdrawn, iface.removed of the source | settling |
| settling | target: routed | | route.announced, normal preference | ready, `vm.migrated` |
| returning | source: routed | target: absent | iface.removed of the target | ready, `vm.failed` |

Where the cluster announces nothing, switching and settling are passed over: with the guest the target becomes routed
and the source absent, and when the source has said iface.removed the VM has migrated. Only a target that was to let
go is prepared anew in switching, and the source stays until that target has said iface.ready.

The target has a generation of its own, which is the VM's from the moment that the guest runs there. Where the guest
runs is not ours to decide: when it is late, the migration is given up, and when it shows up on the target all the
same, the migration goes on, with another generation: that the target has let go of the one before may still be said.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.admin import VmPhase
from vmfabric.contract.cluster import ClusterSpec
from vmfabric.contract.dataplane import PREFERRED_LOCAL_PREFERENCE
from vmfabric.contract.desired import Presence
from vmfabric.contract.errors import Code
from vmfabric.contract.guest import GuestRunning
from vmfabric.contract.iface import IfaceReady, IfaceRemoved
from vmfabric.contract.names import NodeName
from vmfabric.contract.route import RouteAnnounced, RouteWithdrawn
from vmfabric.contract.vm import MigrationTimes, VmFailed, VmMigrated, VmMigrating
from vmfabric.scheduler.domain import removal
from vmfabric.scheduler.domain.deadlines import Patience
from vmfabric.scheduler.domain.record import Failure, Move, MoveSteps, Stamp, VmRecord
from vmfabric.scheduler.domain.turn import Turn, enter, rest

STEP = "migrate"
SWITCHED_STEP = "switch"
"""The guest runs on the target: there is only the way forward."""
BEFORE_THE_SWITCH = frozenset({VmPhase.PREPARING, VmPhase.MOVING})
PHASES = BEFORE_THE_SWITCH | {VmPhase.SWITCHING, VmPhase.LEAVING, VmPhase.SETTLING, VmPhase.RETURNING}

MoveFact = IfaceReady | IfaceRemoved | RouteAnnounced | RouteWithdrawn


def why_bound(cluster: ClusterSpec, node: NodeName) -> str | None:
    """Why VMs of this cluster cannot leave this node; None when they can."""
    if cluster.type.can_migrate:
        return None
    return (
        f"the provider sends its addresses to {node} and to no other node; delete it and create it anew elsewhere, "
        "with other addresses"
    )


def start(
    record: VmRecord,
    asked: Stamp,
    *,
    target: NodeName,
    addresses: Sequence[HostAddress],
    generation: int,
    trace_id: str,
    now: datetime,
    patience: Patience,
) -> Turn:
    """The target is chosen; `addresses` are its own."""
    if record.desired is None:
        raise ValueError(f"{record.cluster}/{record.vm} is not wired anywhere, so it cannot move")
    desired = record.desired.model_copy(
        update={"node": target, "generation": generation, "presence": Presence.PREPARED, "trace_id": trace_id}
    )
    move = Move(
        source=record.node,
        target=target,
        target_addresses=tuple(addresses),
        generation=generation,
        desired=desired,
        asked_at=asked.at,
        trace_id=trace_id,
        steps=MoveSteps(placed=now),
    )
    moving = record.model_copy(update={"last_migration_request": asked, "move": move})
    return Turn(enter(moving, VmPhase.PREPARING, now, patience), events=(migrating(record, move),), puts=(desired,))


def migrating(record: VmRecord, move: Move) -> VmMigrating:
    """That it is on its way."""
    generation = move.generation if record.node == move.source else record.generation
    return VmMigrating(
        cluster=record.cluster, vm=record.vm, source=move.source, target=move.target, generation=generation
    )


def advance(record: VmRecord, move: Move, fact: MoveFact, now: datetime, patience: Patience) -> Turn | None:
    """What a fact changes; None when it changes nothing."""
    of_home, of_other = fact.generation == record.generation, fact.generation == move.generation
    match record.phase, fact:
        case VmPhase.PREPARING, IfaceReady() if of_other:
            return Turn(enter(_with(record, _stepped(move, wired=now)), VmPhase.MOVING, now, patience))
        case VmPhase.SWITCHING, RouteAnnounced() if of_home:
            announced = _stepped(move, announced=now)
            if move.is_gone:
                return settle(record, announced, now, patience)
            return Turn(enter(_with(record, announced), VmPhase.LEAVING, now, patience))
        case VmPhase.SWITCHING, IfaceReady() if of_home and not record.is_announced:
            return _leaves(record, move, now, patience)
        case ((VmPhase.LEAVING | VmPhase.RETURNING), (IfaceRemoved() | RouteWithdrawn())) if of_other:
            return _lets_go(record, move, fact, now, patience)
        case VmPhase.SETTLING, RouteAnnounced() if of_home and _is_normal(fact):
            return _migrated(record, move, now, patience)
        case _:
            return None


def guest_runs(
    record: VmRecord, said: GuestRunning, *, said_at: datetime, generation: int, now: datetime, patience: Patience
) -> Turn | None:
    """The guest runs on the target; None when that is another node, or is the late word of an earlier stay there.

    `generation` is what the target's becomes: a new one when it was told to let go.
    """
    move = record.move
    is_awaited = record.phase in BEFORE_THE_SWITCH or record.phase is VmPhase.RETURNING
    if move is None or record.desired is None or not is_awaited:
        return None
    is_of_now = said_at > move.asked_at if said.generation is None else said.generation == move.generation
    if said.node != move.target or not is_of_now:
        return None
    # The target was told to let go, and may do so before it hears this: until it is wired anew the source stays.
    is_called_back = record.phase is VmPhase.RETURNING and not record.is_announced
    on_target = Presence.PREPARED if is_called_back else _presence_on_target(record)
    target = move.desired.model_copy(update={"presence": on_target, "generation": generation})
    source = record.desired.model_copy(
        update={
            "presence": record.desired.presence if is_called_back else _presence_on_source(record),
            "toward": move.target_addresses if record.is_announced else (),
            "trace_id": move.trace_id,
        }
    )
    left = move.model_copy(
        update={
            "generation": record.generation,
            "desired": source,
            "steps": move.steps.model_copy(update={"wired": move.steps.wired or now, "running": now}),
            "failure": None,
            "unwired": False,
            "withdrawn": not record.is_announced,
        }
    )
    arrived = record.model_copy(
        update={"node": move.target, "generation": generation, "desired": target, "move": left}
    )
    phase = VmPhase.SWITCHING if record.is_announced or is_called_back else VmPhase.LEAVING
    return Turn(enter(arrived, phase, now, patience), puts=(target, source))


def _leaves(record: VmRecord, move: Move, now: datetime, patience: Patience) -> Turn:
    """The target is wired, so the source lets go."""
    home = record.wanted(_presence_on_target(record))
    absent = move.desired.model_copy(update={"presence": Presence.ABSENT})
    left = _with(record.model_copy(update={"desired": home}), move.model_copy(update={"desired": absent}))
    return Turn(enter(left, VmPhase.LEAVING, now, patience), puts=(home, absent))


def give_up(record: VmRecord, move: Move, failure: Failure, now: datetime, patience: Patience) -> Turn:
    """The guest does not come to the target, which lets go of everything."""
    absent = move.desired.model_copy(update={"presence": Presence.ABSENT})
    # It was never announced there, so nothing is to be withdrawn.
    back = move.model_copy(update={"desired": absent, "failure": failure, "withdrawn": True})
    returning = enter(record.model_copy(update={"move": back}), VmPhase.RETURNING, now, patience)
    return Turn(returning, puts=(absent,))


def cancelled() -> Failure:
    """Somebody asked for the VM's removal meanwhile."""
    return Failure(step=STEP, code=Code.CANCELLED, message="the VM is to be deleted, so it does not move any more")


def called_back(source: NodeName) -> Failure:
    """Somebody asked for the node that the VM is on."""
    return Failure(step=STEP, code=Code.CANCELLED, message=f"somebody asked for it to stay on {source}")


def ask_again(record: VmRecord, move: Move) -> Turn:
    """What the answer follows from, once more; a node that has forwarded long enough lets go."""
    if record.phase is VmPhase.LEAVING and move.desired.presence is not Presence.ABSENT:
        absent = move.desired.model_copy(update={"presence": Presence.ABSENT, "toward": ()})
        left = move.model_copy(update={"desired": absent})
        return Turn(record.model_copy(update={"move": left}), puts=(absent,))
    home = () if record.desired is None else (record.desired,)
    match record.phase:
        case VmPhase.SWITCHING:
            return Turn(record, puts=record.all_desired())
        case VmPhase.SETTLING:
            return Turn(record, puts=home)
        case _:
            return Turn(record, puts=(move.desired,))


def waits_for(record: VmRecord, move: Move) -> str:
    """In an operator's words."""
    match record.phase:
        case VmPhase.PREPARING:
            return f"iface.ready from the node-agent of {move.target}"
        case VmPhase.MOVING:
            return f"guest.running on {move.target}, from whoever moves the guest"
        case VmPhase.SWITCHING if not record.is_announced:
            return f"iface.ready from the node-agent of {move.target}"
        case VmPhase.SWITCHING:
            return f"route.announced from the bgp-announcer of {move.target}"
        case VmPhase.SETTLING:
            return f"route.announced with the normal preference from the bgp-announcer of {move.target}"
        case _:
            node = waits_on(record, move)
            services = [] if move.withdrawn else [f"route.withdrawn from the bgp-announcer of {node}"]
            services += [] if move.unwired else [f"iface.removed from the node-agent of {node}"]
            return " and ".join(services)


def waits_on(record: VmRecord, move: Move) -> NodeName | None:
    """The node whose services have to say it; None when whoever moves the guest has."""
    if record.phase is VmPhase.MOVING:
        return None
    return move.source if record.phase is VmPhase.LEAVING else move.target


def _lets_go(
    record: VmRecord, move: Move, fact: IfaceRemoved | RouteWithdrawn, now: datetime, patience: Patience
) -> Turn | None:
    if move.desired.presence is not Presence.ABSENT:
        return None
    said: Mapping[str, bool] = {"unwired": True} if isinstance(fact, IfaceRemoved) else {"withdrawn": True}
    gone = move.model_copy(update=said)
    record = record.model_copy(update={"move": gone})
    if not gone.is_gone:
        return Turn(record)
    if record.phase is VmPhase.RETURNING:
        return _returned(record, gone, now, patience)
    turn = settle(record, gone, now, patience)
    return Turn(turn.record, turn.events, turn.puts, purges=(gone.desired.key(),))


def settle(record: VmRecord, gone: Move, now: datetime, patience: Patience) -> Turn:
    """The source has nothing of it any more, so the target needs no preference."""
    home = record.wanted(record.settled_presence)
    left = _stepped(gone, left=now)
    settling = _with(record.model_copy(update={"desired": home}), left)
    if record.is_announced:
        return Turn(enter(settling, VmPhase.SETTLING, now, patience), puts=(home,))
    turn = _migrated(settling, left, now, patience)
    return Turn(turn.record, turn.events, puts=turn.puts if home == record.desired else (home, *turn.puts))


def _presence_on_target(record: VmRecord) -> Presence:
    """Of two nodes that announce it, the one where the guest runs is preferred."""
    return Presence.PREFERRED if record.is_announced else record.settled_presence


def _presence_on_source(record: VmRecord) -> Presence:
    """What is not announced is not sent here any more. Who forwards announces with the normal preference, as a lost
    node may still do: a refuge keeps its own.
    """
    if not record.is_announced:
        return Presence.ABSENT
    return Presence.EVACUATED if record.evacuated else Presence.FORWARDED


def _migrated(record: VmRecord, move: Move, now: datetime, patience: Patience) -> Turn:
    said = VmMigrated(
        cluster=record.cluster,
        vm=record.vm,
        source=move.source,
        node=record.node,
        generation=record.generation,
        addresses=record.addresses,
        steps_ms=_times(move, now),
    )
    return _ended(record, said, now, patience)


def _returned(record: VmRecord, move: Move, now: datetime, patience: Patience) -> Turn:
    where = f"{record.vm} is on {record.node} as before, nothing of it is left on {move.target}"
    turn = stay(record, move, where, now, patience)
    return Turn(turn.record, turn.events, turn.puts, purges=(move.desired.key(),))


def stay(record: VmRecord, move: Move, where: str, now: datetime, patience: Patience) -> Turn:
    """The migration has failed; `where` says in words what is left of it."""
    failure = move.failure or cancelled()
    said = VmFailed(
        cluster=record.cluster,
        vm=record.vm,
        generation=record.generation,
        step=failure.step,
        code=failure.code,
        message=f"{where}: {failure.message}",
    )
    return _ended(record, said, now, patience)


def _ended(record: VmRecord, said: VmMigrated | VmFailed, now: datetime, patience: Patience) -> Turn:
    """Ready, or on its way back when its removal was asked for meanwhile."""
    up = rest(record.model_copy(update={"move": None}), now, patience)
    if not record.delete_requested:
        return Turn(up, events=(said,))
    turn = removal.begin(up, now, patience)
    return Turn(turn.record, events=(said, *turn.events), puts=turn.puts)


def _stepped(move: Move, **steps: datetime) -> Move:
    return move.model_copy(update={"steps": move.steps.model_copy(update=steps)})


def _with(record: VmRecord, move: Move) -> VmRecord:
    return record.model_copy(update={"move": move})


def _is_normal(fact: RouteAnnounced) -> bool:
    return all(route.local_preference < PREFERRED_LOCAL_PREFERENCE for route in fact.routes)


def _times(move: Move, settled: datetime) -> MigrationTimes:
    def milliseconds(moment: datetime | None) -> float:
        return round(((moment or settled) - move.asked_at).total_seconds() * 1000, 3)

    steps = move.steps
    return MigrationTimes(
        placed=milliseconds(steps.placed),
        wired=milliseconds(steps.wired),
        running=milliseconds(steps.running),
        announced=milliseconds(steps.announced) if move.desired.is_announced else None,
        left=milliseconds(steps.left),
        settled=milliseconds(settled),
    )
