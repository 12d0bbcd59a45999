"""Which event goes to which function, and what each does."""

from collections.abc import Callable

import structlog

from vmfabric.contract.admin import VmPhase
from vmfabric.contract.cluster import ClusterSpec, NetworkType
from vmfabric.contract.desired import HandedOut
from vmfabric.contract.envelope import Outgoing, Trace, outgoing
from vmfabric.contract.errors import Code
from vmfabric.contract.guest import GuestRunning
from vmfabric.contract.iface import IfaceReady, IfaceRemoved
from vmfabric.contract.ip import IpAllocated, IpRefused, IpReleased
from vmfabric.contract.model import Event
from vmfabric.contract.names import ClusterName, NodeName, VmName
from vmfabric.contract.placement import Cause
from vmfabric.contract.route import RouteAnnounced, RouteWithdrawn
from vmfabric.contract.vm import VmDecided, VmDeleted, VmDeleteRequested, VmFailed, VmMigrateRequested, VmRequested
from vmfabric.runtime.clock import Clock
from vmfabric.runtime.desired import purge, put
from vmfabric.runtime.inbound import Invalid
from vmfabric.runtime.message import AnyRoute, Message, Route
from vmfabric.scheduler import metrics
from vmfabric.scheduler.desk import Desk
from vmfabric.scheduler.domain import evacuation, lifecycle, migration, requests
from vmfabric.scheduler.domain.changes import NodeKey
from vmfabric.scheduler.domain.deadlines import Patience
from vmfabric.scheduler.domain.lateness import known_reason
from vmfabric.scheduler.domain.lifecycle import VmFact
from vmfabric.scheduler.domain.placement import recorded
from vmfabric.scheduler.domain.ranking import Decision
from vmfabric.scheduler.domain.record import LeftBehind, Stamp, VmKey, VmRecord
from vmfabric.scheduler.domain.turn import Turn
from vmfabric.scheduler.domain.wiring import IN_A_FABRIC, Surroundings
from vmfabric.scheduler.transaction import Transaction

SOURCE = "scheduler"

ProblemOf = Callable[[NodeKey, VmName], str | None]
"""What a node has said last to be in the way of a VM there."""

log = structlog.get_logger()


class Handlers:
    """The scheduler's side of every conversation about a VM. Each returns when its effect is committed."""

    def __init__(
        self,
        desk: Desk,
        clock: Clock,
        patience: Patience,
        *,
        problem_of: ProblemOf = lambda _node, _vm: None,
    ) -> None:
        self._desk = desk
        self._clock = clock
        self._patience = patience
        self._problem_of = problem_of

    def requests(self) -> tuple[AnyRoute, ...]:
        """What anybody may ask."""
        return (
            Route(VmRequested, self.requested),
            Route(VmDeleteRequested, self.delete_requested),
            Route(VmMigrateRequested, self.migrate_requested),
        )

    def facts(self) -> tuple[AnyRoute, ...]:
        """What the other services say."""
        kinds: tuple[type[VmFact], ...] = (
            IpAllocated,
            IpRefused,
            IpReleased,
            IfaceReady,
            IfaceRemoved,
            RouteAnnounced,
            RouteWithdrawn,
        )
        return (*(Route(kind, self.happened) for kind in kinds), Route(GuestRunning, self.guest_running))

    async def requested(self, message: Message[VmRequested]) -> None:
        """Somebody wants a VM."""
        await self._desk.place(_key(message.event), lambda tx: self._requested(tx, message))

    async def delete_requested(self, message: Message[VmDeleteRequested]) -> None:
        """Somebody wants a VM gone."""
        await self._desk.do(_key(message.event), lambda tx: self._delete_requested(tx, message))

    async def migrate_requested(self, message: Message[VmMigrateRequested]) -> None:
        """Somebody wants a VM on another node."""
        await self._desk.do(_key(message.event), lambda tx: self._migrate_requested(tx, message))

    async def guest_running(self, message: Message[GuestRunning]) -> None:
        """The hypervisor's side says where a guest runs."""
        await self._desk.do(_key(message.event), lambda tx: self._guest_running(tx, message))

    async def happened(self, message: Message[VmFact]) -> None:
        """Another service says something of a VM."""
        await self._desk.do(_key(message.event), lambda tx: self._happened(tx, message.event))

    async def evacuate(self, key: VmKey, lost: NodeName) -> None:
        """Take it off a node that is lost and fenced, if a node has room for it."""
        await self._desk.do(key, lambda tx: self._evacuate(tx, key, lost))

    async def look_after(self, key: VmKey) -> None:
        """Ask again, or give up, when an answer is late."""
        await self._desk.do(key, lambda tx: self._look_after(tx, key))

    async def invalid(self, invalid: Invalid) -> None:
        """Input that cannot be read is answered where it says of which VM it is."""
        if invalid.cluster is None or invalid.vm is None:
            return
        sentence = f"{invalid.reason}. Nothing was changed"
        failed = requests.refusal(invalid.cluster, invalid.vm, Code.INVALID_REQUEST, sentence)

        async def answer(tx: Transaction) -> None:
            self._say(tx, failed, invalid.trace)

        await self._desk.do(VmKey(invalid.cluster, invalid.vm), answer)

    async def _requested(self, tx: Transaction, message: Message[VmRequested]) -> None:
        request, asked = message.event, Stamp(message.at, message.sequence)
        key = _key(request)
        record = await tx.vm(key)
        if request.dry_run:
            await self._say_which(tx, message, record)
        elif requests.is_repetition(asked, record.last_request if record else await tx.last_request(key)):
            log.info("request.repeated", at=message.at)
        elif record is not None:
            self._take(tx, record, requests.ask_again(record, request, asked), message.trace)
        else:
            await self._create(tx, message, asked)

    async def _create(self, tx: Transaction, message: Message[VmRequested], asked: Stamp) -> None:
        request, trace = message.event, message.trace
        key = _key(request)
        cluster = await _cluster_for(tx, request)
        if isinstance(cluster, VmFailed):
            tx.keep_last_request(key, asked)
            self._say(tx, cluster, trace)
            return
        decision = await tx.choose(cluster, request, node=request.node, is_new=True)
        if decision.node is None:
            tx.keep_last_request(key, asked)
            self._say(tx, requests.no_node(request, decision), trace)
            return
        self._keep(tx, key, decision, Cause.REQUEST, cluster)
        turn = requests.create(
            request,
            asked,
            node=decision.node,
            generation=await tx.new_generation(),
            trace_id=trace.trace_id,
            now=self._clock.now(),
            patience=self._patience,
        )
        self._take(tx, None, turn, trace)

    async def _say_which(self, tx: Transaction, message: Message[VmRequested], record: VmRecord | None) -> None:
        """Which node it would get, and nothing else; one that is there already as if it were not."""
        request = message.event
        cluster = await _cluster_for(tx, request)
        if isinstance(cluster, VmFailed):
            self._say(tx, cluster, message.trace)
            return
        decision = await tx.choose(cluster, request, node=request.node, is_new=True, without=record)
        said = recorded(decision, Cause.REQUEST, cluster.placement, self._clock.now())
        self._say(tx, VmDecided(cluster=request.cluster, vm=request.vm, decision=said), message.trace)

    async def _delete_requested(self, tx: Transaction, message: Message[VmDeleteRequested]) -> None:
        key, asked = _key(message.event), Stamp(message.at, message.sequence)
        record = await tx.vm(key)
        if requests.is_repetition(asked, record.last_request if record else await tx.last_request(key)):
            log.info("request.repeated", at=message.at)
        elif record is not None:
            turn = lifecycle.delete(record, asked, self._clock.now(), self._patience)
            self._take(tx, record, turn, Trace(record.current_trace_id))
        else:
            tx.keep_last_request(key, asked)
            known = await tx.cluster(key.cluster) is not None
            answer = VmDeleted(cluster=key.cluster, vm=key.vm) if known else requests.no_cluster(*key)
            self._say(tx, answer, message.trace)

    async def _happened(self, tx: Transaction, fact: VmFact) -> None:
        if isinstance(fact, IfaceReady | IfaceRemoved | RouteWithdrawn):
            await self._lets_go(tx, fact)
        record = await tx.vm(_key(fact))
        cluster = await tx.cluster(fact.cluster) if record else None
        if record is None or cluster is None:
            return
        around = await _around(tx, record, cluster) if isinstance(fact, IpAllocated) else IN_A_FABRIC
        turn = await self._place_again(tx, record, fact, cluster) or lifecycle.advance(
            record, fact, cluster, self._clock.now(), self._patience, around=around
        )
        if turn is None:
            return
        if turn.record is None:
            # By this a database that has forgotten the removal is known.
            tx.send([put(HandedOut(generation=await tx.new_generation()))])
        self._take(tx, record, turn, Trace(record.current_trace_id))

    async def _place_again(
        self, tx: Transaction, record: VmRecord, fact: VmFact, cluster: ClusterSpec
    ) -> Turn | None:
        """Its node has no address for it any more; another one may have."""
        is_full = isinstance(fact, IpRefused) and requests.may_be_elsewhere(record, fact)
        if not is_full or not tx.tells_nodes_apart(NodeKey(record.cluster, record.node)):
            return None
        decision = await tx.choose(
            cluster, record.request, node=None, leaves=record.node, is_new=True, without=record
        )
        if decision.node is None:
            return None
        self._keep(tx, record.key, decision, Cause.REQUEST, cluster)
        generation = await tx.new_generation()
        return requests.place_again(record, decision.node, generation, self._clock.now(), self._patience)

    async def _lets_go(self, tx: Transaction, fact: IfaceReady | IfaceRemoved | RouteWithdrawn) -> None:
        """A node that was lost may let go of what a VM has left behind there."""
        record = await tx.vm(_key(fact))
        if record is not None and not record.evacuated and fact.generation in record.generations():
            return
        await self._left_changes(tx, _key(fact), lambda left: evacuation.hears(left, fact))

    async def forget(self, tx: Transaction, key: VmKey, node: NodeName) -> None:
        """A node that does not come back will never say that it let go of the VM."""
        await self._left_changes(tx, key, lambda left: evacuation.forgotten(left, node))

    async def _left_changes(self, tx: Transaction, key: VmKey, change: Callable[[LeftBehind], LeftBehind]) -> None:
        record = await tx.vm(key)
        before = await tx.left_behind(key)
        after = [change(left) for left in before]
        wanted = frozenset(value.key() for value in record.all_desired()) if record else frozenset()
        for left in (left for left in after if left not in before):
            tx.put_left_behind(left)
            if left.is_gone:
                gone = left.desired
                log.info("vm.let_go", cluster=gone.cluster, vm=gone.vm, node=gone.node, generation=gone.generation)
                tx.send(map(purge, {gone.key()} - wanted))
        if record is not None and record.evacuated and before and all(left.is_gone for left in after):
            self._take(tx, record, evacuation.let_go(record), Trace(record.current_trace_id))

    async def _evacuate(self, tx: Transaction, key: VmKey, lost: NodeName) -> None:
        record, cluster = await tx.vm(key), await tx.cluster(key.cluster)
        if record is None or cluster is None:
            return
        turn: Turn | None
        now = self._clock.now()
        if evacuation.needs_refuge(record, lost):
            if not cluster.type.can_migrate:
                return
            decision = await tx.choose(cluster, record.request, node=record.request.node)
            if decision.node is None:
                return
            self._keep(tx, key, decision, Cause.EVACUATION, cluster)
            refuge = evacuation.Refuge(decision.node, await tx.new_generation())
            turn = evacuation.flee(record, refuge, await tx.new_generation(), now, self._patience)
        else:
            turn = evacuation.abandon(record, lost, await tx.new_generation(), now, self._patience)
        if turn is None:
            return
        log.warning(
            "vm.evacuated", cluster=key.cluster, vm=key.vm, lost=lost, phase=record.phase,
            node=turn.record and turn.record.node, generation=turn.record and turn.record.generation,
            trace_id=record.current_trace_id,
        )  # fmt: skip
        self._take(tx, record, turn, Trace(record.current_trace_id))

    async def _guest_running(self, tx: Transaction, message: Message[GuestRunning]) -> None:
        record = await tx.vm(_key(message.event))
        if record is None or record.move is None:
            return
        turn = migration.guest_runs(
            record,
            message.event,
            said_at=message.at,
            generation=await tx.new_generation() if record.phase is VmPhase.RETURNING else record.move.generation,
            now=self._clock.now(),
            patience=self._patience,
        )
        if turn is not None:
            self._take(tx, record, turn, Trace(record.current_trace_id))

    async def _migrate_requested(self, tx: Transaction, message: Message[VmMigrateRequested]) -> None:
        request, asked = message.event, Stamp(message.at, message.sequence)
        key = _key(request)
        record = await tx.vm(key)
        cluster = await tx.cluster(key.cluster)
        served = (record.last_request, record.last_migration_request) if record else (await tx.last_request(key),)
        if requests.is_repetition(asked, *served):
            log.info("request.repeated", at=message.at)
        elif record is None or cluster is None:
            self._say(tx, requests.no_vm(*key) if cluster else requests.no_cluster(*key), message.trace)
        elif (move := requests.calls_back(record, request)) is not None:
            served_now = record.model_copy(update={"last_migration_request": asked})
            failure = migration.called_back(record.node)
            turn = migration.give_up(served_now, move, failure, self._clock.now(), self._patience)
            self._take(tx, record, turn, Trace(record.current_trace_id))
        elif (answer := requests.cannot_migrate(record, request, cluster)) is not None:
            tx.put_vm(record.model_copy(update={"last_migration_request": asked}))
            self._say(tx, answer, message.trace)
        else:
            await self._migrate(tx, record, message, cluster)

    async def _migrate(
        self, tx: Transaction, record: VmRecord, message: Message[VmMigrateRequested], cluster: ClusterSpec
    ) -> None:
        asked = Stamp(message.at, message.sequence)
        decision = await tx.choose(cluster, record.request, node=message.event.node, leaves=record.node)
        row = next((row for row in await tx.nodes(cluster.name) if row.spec.name == decision.node), None)
        if row is None:
            tx.put_vm(record.model_copy(update={"last_migration_request": asked}))
            is_known = await _knows(tx, cluster.name, message.event.node)
            failed = (
                requests.no_target(record, decision)
                if is_known
                else requests.no_such_node(message.event, migration.STEP)
            )
            self._say(tx, failed, message.trace)
            return
        self._keep(tx, record.key, decision, Cause.MIGRATION, cluster)
        turn = migration.start(
            record,
            asked,
            target=row.spec.name,
            addresses=(row.spec.address, *row.heard.addresses),
            generation=await tx.new_generation(),
            trace_id=message.trace.trace_id,
            now=self._clock.now(),
            patience=self._patience,
        )
        self._take(tx, record, turn, message.trace)

    async def _look_after(self, tx: Transaction, key: VmKey) -> None:
        record, now = await tx.vm(key), self._clock.now()
        if record is None:
            return
        reason = await self._why_late(tx, record) if record.waiting.is_over(now) else None
        turn = lifecycle.overdue(record, now, self._patience, reason=reason)
        if turn is None:
            return
        metrics.overdue.labels(record.phase).inc()
        log.info(
            "vm.overdue", cluster=key.cluster, vm=key.vm, phase=record.phase, waits_for=lifecycle.waits_for(record),
            node=record.node, generation=record.generation, trace_id=record.current_trace_id,
        )  # fmt: skip
        self._take(tx, record, turn, Trace(record.current_trace_id))

    async def _why_late(self, tx: Transaction, record: VmRecord) -> str | None:
        node = lifecycle.waits_on(record)
        if node is None:
            return None
        row = next((row for row in await tx.rows.nodes(record.cluster) if row.spec.name == node), None)
        return None if row is None else known_reason(row.spec.name, row.heard, self._problem_of(row.key, record.vm))

    def _take(self, tx: Transaction, before: VmRecord | None, turn: Turn, trace: Trace) -> None:
        if turn.record is not None:
            tx.put_vm(turn.record)
        elif before is not None:
            tx.remove_vm(before)
            tx.keep_last_request(before.key, before.last_request)
        # Who hears that a VM is gone finds no key of it; who is to let it go hears that before the key says so.
        tx.send(map(purge, turn.purges))
        tx.send(self._message(event, trace) for event in turn.events)
        tx.send(map(put, (*turn.left_behind, *turn.puts)))
        for value in turn.left_behind:
            tx.put_left_behind(LeftBehind(desired=value))

    def _say(self, tx: Transaction, event: Event, trace: Trace) -> None:
        tx.send([self._message(event, trace)])

    def _message(self, event: Event, trace: Trace) -> Outgoing:
        metrics.count(event)
        return outgoing(event, source=SOURCE, trace=trace, at=self._clock.now())

    def _keep(self, tx: Transaction, key: VmKey, decision: Decision, cause: Cause, cluster: ClusterSpec) -> None:
        tx.put_decision(key, recorded(decision, cause, cluster.placement, self._clock.now()))


async def _around(tx: Transaction, record: VmRecord, cluster: ClusterSpec) -> Surroundings:
    match cluster.type:
        case NetworkType.IP_FABRIC:
            return IN_A_FABRIC
        case NetworkType.SWITCHING:
            rows = await tx.rows.nodes(cluster.name)
            return Surroundings(
                taken={own: row.spec.name for row in rows for own in (row.spec.address, *row.heard.addresses)}
            )
        case NetworkType.ROUTING:
            return Surroundings(await tx.node(cluster.name, record.node))


async def _cluster_for(tx: Transaction, request: VmRequested) -> ClusterSpec | VmFailed:
    """Where a node for the VM is to be looked for, or why there is nothing to look for."""
    cluster = await tx.cluster(request.cluster)
    if cluster is None:
        return requests.no_cluster(*_key(request))
    if (unfitting := requests.unfitting(request, cluster)) is not None:
        return unfitting
    if not await _knows(tx, request.cluster, request.node):
        return requests.no_such_node(request, "place")
    return cluster


async def _knows(tx: Transaction, cluster: ClusterName, node: NodeName | None) -> bool:
    """Whether there is such a node, if one was named."""
    return node is None or node in {row.spec.name for row in await tx.nodes(cluster)}


def _key(event: VmRequested | VmDeleteRequested | VmMigrateRequested | GuestRunning | VmFact) -> VmKey:
    return VmKey(event.cluster, event.vm)
