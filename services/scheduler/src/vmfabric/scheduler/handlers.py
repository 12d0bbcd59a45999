"""Which event goes to which function, and what each does."""

import json
from collections.abc import Sequence

import structlog

from vmfabric.contract.admin import VmPhase
from vmfabric.contract.envelope import Outgoing, Trace, outgoing
from vmfabric.contract.errors import Code
from vmfabric.contract.iface import IfaceReady, IfaceRemoved
from vmfabric.contract.ip import IpAllocated, IpRefused, IpReleased
from vmfabric.contract.model import Event
from vmfabric.contract.names import ClusterName, VmName
from vmfabric.contract.route import RouteAnnounced, RouteWithdrawn
from vmfabric.contract.vm import VmDeleted, VmDeleteRequested, VmFailed, VmRequested
from vmfabric.runtime.clock import Clock
from vmfabric.runtime.desired import purge, put
from vmfabric.runtime.inbound import Invalid
from vmfabric.runtime.message import AnyRoute, Message, Route
from vmfabric.scheduler.domain import lifecycle
from vmfabric.scheduler.domain.candidate import Candidate, Wish
from vmfabric.scheduler.domain.deadlines import Patience
from vmfabric.scheduler.domain.lifecycle import Turn, VmFact
from vmfabric.scheduler.domain.placement import Decision, choose
from vmfabric.scheduler.domain.record import Steps, VmRecord, guest_mac
from vmfabric.scheduler.ports import Store, Transaction

SOURCE = "scheduler"

log = structlog.get_logger()


class Handlers:
    """The scheduler's side of every conversation about a VM."""

    def __init__(self, store: Store, clock: Clock, patience: Patience) -> None:
        self._store = store
        self._clock = clock
        self._patience = patience

    def requests(self) -> tuple[AnyRoute, ...]:
        """What anybody may ask."""
        return (Route(VmRequested, self.requested), Route(VmDeleteRequested, self.delete_requested))

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
        return tuple(Route(kind, self.happened) for kind in kinds)

    async def requested(self, message: Message[VmRequested]) -> None:
        """Somebody wants a VM."""
        request = message.event
        async with self._store.transaction() as tx:
            record = await tx.vm(request.cluster, request.vm)
            if record is not None:
                await self._requested_again(tx, message, record)
                return
            last = await tx.last_request(request.cluster, request.vm)
            if last is not None and message.at <= last:
                log.info("request.repeated", at=message.at, served=last)
                return
            await self._create(tx, message)

    async def delete_requested(self, message: Message[VmDeleteRequested]) -> None:
        """Somebody wants a VM gone."""
        cluster, vm = message.event.cluster, message.event.vm
        async with self._store.transaction() as tx:
            record = await tx.vm(cluster, vm)
            last = record.requested_at if record else await tx.last_request(cluster, vm)
            if last is not None and message.at <= last:
                log.info("request.repeated", at=message.at, served=last)
                return
            if record is not None:
                await self._take(tx, record, lifecycle.delete(record, message.at, self._clock.now(), self._patience))
                return
            await tx.keep_last_request(cluster, vm, message.at)
            if await tx.cluster(cluster) is None:
                await self._refuse(tx, message.event, message.trace, Code.UNKNOWN_CLUSTER, _no_cluster(cluster))
            else:
                await self._say(tx, [VmDeleted(cluster=cluster, vm=vm)], message.trace)

    async def happened(self, message: Message[VmFact]) -> None:
        """Another service says something of a VM."""
        fact = message.event
        async with self._store.transaction() as tx:
            record = await tx.vm(fact.cluster, fact.vm)
            cluster = await tx.cluster(fact.cluster)
            if record is None or cluster is None:
                return
            turn = lifecycle.advance(record, fact, cluster, self._clock.now(), self._patience)
            if turn is not None:
                await self._take(tx, record, turn)

    async def look_after(self, cluster: ClusterName, vm: VmName) -> None:
        """Ask again, or give up, when an answer is late."""
        async with self._store.transaction() as tx:
            record = await tx.vm(cluster, vm)
            turn = lifecycle.overdue(record, self._clock.now(), self._patience) if record else None
            if record is not None and turn is not None:
                log.info(
                    "vm.overdue", cluster=cluster, vm=vm, phase=record.phase, waits_for=lifecycle.waits_for(record),
                    node=record.node, generation=record.generation, trace_id=record.trace_id,
                )  # fmt: skip
                await self._take(tx, record, turn)

    async def invalid(self, invalid: Invalid) -> None:
        """Input that cannot be read is answered where it says of which VM it is."""
        if invalid.cluster is None or invalid.vm is None:
            return
        failed = VmFailed(
            cluster=invalid.cluster,
            vm=invalid.vm,
            step="request",
            code=Code.INVALID_REQUEST,
            message=f"{invalid.reason}. Nothing was changed",
        )
        async with self._store.transaction() as tx:
            await self._say(tx, [failed], invalid.trace)

    async def _requested_again(self, tx: Transaction, message: Message[VmRequested], record: VmRecord) -> None:
        request, trace = message.event, message.trace
        if message.at <= record.requested_at:
            log.info("request.repeated", at=message.at, served=record.requested_at)
            return
        await tx.save_vm(record.model_copy(update={"requested_at": message.at}))
        if record.going_back:
            sentence = f"{record.vm} is being removed; ask again after vm.deleted or vm.failed"
            await self._refuse(tx, request, trace, Code.CONFLICT, sentence)
        elif request != record.request:
            sentence = f"{record.vm} exists with another {_differences(request, record.request)}; it is untouched"
            await self._refuse(tx, request, trace, Code.CONFLICT, sentence)
        elif record.phase is VmPhase.READY:
            await self._say(tx, [lifecycle.ready(record)], trace)

    async def _create(self, tx: Transaction, message: Message[VmRequested]) -> None:
        request = message.event
        cluster = await tx.cluster(request.cluster)
        if cluster is None:
            await self._end_request(tx, message)
            await self._refuse(tx, request, message.trace, Code.UNKNOWN_CLUSTER, _no_cluster(request.cluster))
            return
        rows = await tx.nodes(request.cluster, claim=True)
        candidates = [Candidate(row.spec.name, row.state, row.spec.capacity, row.used) for row in rows]
        decision = choose(Wish(request.size, request.node), candidates, cluster.placement)
        if decision.node is None:
            await self._end_request(tx, message)
            await self._say(tx, [_unplaced(request, decision)], message.trace)
            return
        now = self._clock.now()
        record = VmRecord(
            request=request,
            requested_at=message.at,
            created_at=message.at,
            trace_id=message.trace.trace_id,
            node=decision.node,
            generation=await tx.next_generation(),
            mac=guest_mac(request.cluster, request.vm),
            phase=VmPhase.ALLOCATING,
            waiting=self._patience.begin(now),
            steps=Steps(placed=now),
        )
        turn = lifecycle.place(record)
        await tx.add_vm(record)
        await tx.send(self._messages(turn, message.trace))

    async def _take(self, tx: Transaction, before: VmRecord, turn: Turn) -> None:
        if turn.record is None:
            await tx.remove_vm(before)
            await tx.keep_last_request(before.cluster, before.vm, before.requested_at)
        else:
            await tx.save_vm(turn.record)
        await tx.send(self._messages(turn, Trace(before.trace_id)))

    def _messages(self, turn: Turn, trace: Trace) -> list[Outgoing]:
        at = self._clock.now()
        events = [outgoing(event, source=SOURCE, trace=trace, at=at) for event in turn.events]
        return [*events, *map(put, turn.puts), *map(purge, turn.purges)]

    async def _end_request(self, tx: Transaction, message: Message[VmRequested]) -> None:
        await tx.keep_last_request(message.event.cluster, message.event.vm, message.at)

    async def _refuse(
        self, tx: Transaction, request: VmRequested | VmDeleteRequested, trace: Trace, code: Code, sentence: str
    ) -> None:
        failed = VmFailed(cluster=request.cluster, vm=request.vm, step="request", code=code, message=sentence)
        await self._say(tx, [failed], trace)

    async def _say(self, tx: Transaction, events: Sequence[Event], trace: Trace) -> None:
        at = self._clock.now()
        await tx.send([outgoing(event, source=SOURCE, trace=trace, at=at) for event in events])


def _no_cluster(cluster: ClusterName) -> str:
    return f"there is no cluster {cluster}; cluster.list shows those that are, cluster.apply makes one"


def _differences(wanted: VmRequested, found: VmRequested) -> str:
    fields = [name for name in type(wanted).model_fields if getattr(wanted, name) != getattr(found, name)]
    asked, has = wanted.model_dump(mode="json"), found.model_dump(mode="json")
    return ", ".join(f"{name} (asked {_words(asked[name])}, has {_words(has[name])})" for name in fields)


def _words(value: object) -> str:
    return "the default" if value is None else json.dumps(value)


def _unplaced(request: VmRequested, decision: Decision) -> VmFailed:
    reasons = "; ".join(f"{node}: {reason}" for node, reason in sorted(decision.refusals.items())[:5])
    found = f"{len(decision.refusals)} nodes, none fits ({reasons})" if reasons else "it has no node; apply one"
    return VmFailed(
        cluster=request.cluster,
        vm=request.vm,
        step="place",
        code=Code.NO_NODE_FITS,
        message=f"{request.vm} wants {request.cpu} cpu, {request.memory_mb} MB, {request.disk_gb} GB; "
        f"in cluster {request.cluster}: {found}",
        refusals=decision.refusals,
    )
