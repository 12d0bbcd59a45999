"""Goes on with every drain and every evacuation until its node is empty."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import structlog

from vmfabric.contract.admin import NodeState, VmPhase
from vmfabric.contract.envelope import Trace, outgoing
from vmfabric.contract.errors import Code, TryAgain
from vmfabric.contract.model import Event
from vmfabric.contract.names import VmName
from vmfabric.contract.node import NodeDrained, NodeDraining, NodeFenced
from vmfabric.contract.vm import VmMigrateRequested
from vmfabric.runtime.clock import Clock
from vmfabric.runtime.message import AnyRoute, Message, Route
from vmfabric.scheduler.domain import drain
from vmfabric.scheduler.domain.changes import NodeKey
from vmfabric.scheduler.domain.drain import Drain
from vmfabric.scheduler.domain.record import VmKey
from vmfabric.scheduler.domain.wish import groups_of
from vmfabric.scheduler.handlers import SOURCE, Handlers
from vmfabric.scheduler.ports import Store
from vmfabric.scheduler.transaction import Transaction, transaction

EVACUATED_AT_ONCE = 100
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_SKEW = timedelta(seconds=5)
"""Between the bus's clock and ours."""
_UNTIL_LOST = timedelta(seconds=60)
"""How long a fence is ahead of the absence of heartbeats at most."""

log = structlog.get_logger()


class Draining:
    """It asks for migrations as anybody does, by `vm.migrate.requested`; an evacuation needs nobody's answer."""

    def __init__(self, store: Store, clock: Clock, handlers: Handlers, *, committed: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._handlers = handlers
        self._committed = committed
        self._asked: defaultdict[NodeKey, dict[VmName, datetime]] = defaultdict(dict)
        """When each VM of a node was asked to move, or tried to be placed elsewhere, last."""

    def facts(self) -> tuple[AnyRoute, ...]:
        """What others say of nodes."""
        return (Route(NodeFenced, self.fenced),)

    async def fenced(self, message: Message[NodeFenced]) -> None:
        """A lost node does not run: when its cluster trusts whoever says so, it is evacuated."""
        event, key = message.event, NodeKey(message.event.cluster, message.event.node)
        said = {"cluster": event.cluster, "node": event.node, "fence": event.fence}
        async with transaction(self._store) as tx:
            row = next((row for row in await tx.nodes(key.cluster) if row.key == key), None)
            cluster = await tx.cluster(key.cluster)
            if row is None or cluster is None or event.fence not in cluster.trusted_fences:
                log.warning("node.fence_ignored", **said, todo="name it in trusted_fences of the cluster")
                return
            if row.heard.at is not None and message.at < row.heard.at - _SKEW:
                log.warning("node.fence_ignored", **said, todo="it was heard since; say it again when it is lost now")
                return
            if row.heard.state is not NodeState.LOST:
                self._wait_until_lost(message, said)
                return
            if row.drain is None or row.drain.fence is None:
                log.warning("node.evacuating", **said, trace_id=message.trace.trace_id)
                tx.put_drain(key, drain.evacuation(event.fence, row.drain, message.trace.trace_id, self._clock.now()))
        self._committed()

    def _wait_until_lost(self, message: Message[NodeFenced], said: Mapping[str, str]) -> None:
        """A fence is faster than the absence of heartbeats."""
        if self._clock.now() - message.at < _UNTIL_LOST:
            raise TryAgain(Code.IN_USE, f"node {message.event.node} is not lost yet")
        log.warning("node.fence_ignored", **said, todo="the node is heard: is it the right one?")

    async def review(self) -> None:
        """One round for each node that is being drained."""
        async with transaction(self._store) as tx:
            keys = [row.key for row in await tx.rows.nodes() if row.drain is not None and not row.drain.drained]
        for key in keys:
            async with transaction(self._store) as tx:
                left = await self._go_on(tx, key)
            await self._evacuate(key, left)
        if keys:
            self._committed()

    async def _evacuate(self, key: NodeKey, left: Sequence[VmKey]) -> None:
        done = await asyncio.gather(*(self._handlers.evacuate(vm, key.node) for vm in left), return_exceptions=True)
        for error in done:
            if error is not None:
                raise error

    async def _go_on(self, tx: Transaction, key: NodeKey) -> Sequence[VmKey]:
        """Say how far it is, and have VMs moved. Returns those that have to leave without their node's help."""
        row = next((row for row in await tx.nodes(key.cluster) if row.key == key), None)
        cluster = await tx.cluster(key.cluster)
        if row is None or row.drain is None or cluster is None:
            return ()
        records = await tx.rows.vms_on(key)
        if not records and not await _has_fugitives(tx, key):
            self._finish(tx, key, row.drain)
            return ()
        asked = self._asked[key]
        found = drain.look(
            key.node,
            records,
            drain=row.drain,
            is_lost=row.heard.state is NodeState.LOST,
            asked=asked,
            now=self._clock.now(),
            cluster=cluster,
            market=await tx.market(cluster),
            members=await tx.members(cluster.name, groups_of(*(record.request for record in records))),
        )
        if found.progress != row.drain.said:
            tx.put_drain(key, row.drain.model_copy(update={"said": found.progress}))
            said = NodeDraining(cluster=key.cluster, node=key.node, fence=row.drain.fence, **dict(found.progress))
            self._say(tx, said, row.drain)
        if row.drain.fence is not None and row.heard.state is NodeState.LOST:
            return [VmKey(key.cluster, vm) for vm in self._next(key, [record.vm for record in records])]
        for vm in found.moves:
            asked[vm] = self._clock.now()
            self._say(tx, VmMigrateRequested(cluster=key.cluster, vm=vm), row.drain)
        return ()

    def _next(self, key: NodeKey, vms: Sequence[VmName]) -> Sequence[VmName]:
        """Those that were tried longest ago: one that no node takes does not stand in the way of the others."""
        asked = self._asked[key]
        chosen = sorted(vms, key=lambda vm: (asked.get(vm, _LONG_AGO), vm))[:EVACUATED_AT_ONCE]
        asked |= dict.fromkeys(chosen, self._clock.now())
        return chosen

    def _finish(self, tx: Transaction, key: NodeKey, wanted: Drain) -> None:
        self._asked.pop(key, None)
        tx.put_drain(key, wanted.model_copy(update={"drained": True, "said": None}))
        self._say(tx, NodeDrained(cluster=key.cluster, node=key.node, fence=wanted.fence), wanted)
        log.info("node.drained", **key._asdict(), trace_id=wanted.trace_id)

    def _say(self, tx: Transaction, event: Event, wanted: Drain) -> None:
        tx.send([outgoing(event, source=SOURCE, trace=Trace(wanted.trace_id), at=self._clock.now())])


async def _has_fugitives(tx: Transaction, lost: NodeKey) -> bool:
    """Whether a VM that has fled from this node is not announced by its refuge yet."""
    for left in await tx.rows.left_behind():
        if (left.desired.cluster, left.desired.node) == lost:
            record = await tx.rows.vm(VmKey(left.desired.cluster, left.desired.vm))
            if record is not None and record.evacuated and record.phase is VmPhase.WIRING:
                return True
    return False
