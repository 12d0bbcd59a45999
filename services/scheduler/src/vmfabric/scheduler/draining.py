"""Goes on with every drain until its node is empty."""

from collections.abc import Callable
from datetime import datetime

import structlog

from vmfabric.contract.envelope import Trace, outgoing
from vmfabric.contract.model import Event
from vmfabric.contract.node import NodeDrained, NodeDraining
from vmfabric.contract.vm import VmMigrateRequested
from vmfabric.runtime.clock import Clock
from vmfabric.scheduler.domain import drain
from vmfabric.scheduler.domain.changes import NodeKey
from vmfabric.scheduler.domain.drain import Drain
from vmfabric.scheduler.domain.record import VmKey
from vmfabric.scheduler.handlers import SOURCE
from vmfabric.scheduler.ports import Store
from vmfabric.scheduler.transaction import Transaction, transaction

log = structlog.get_logger()


class Draining:
    """It asks for migrations as anybody does, by `vm.migrate.requested`."""

    def __init__(self, store: Store, clock: Clock, *, committed: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._committed = committed
        self._asked: dict[VmKey, datetime] = {}

    async def review(self) -> None:
        """One round for each node that is being drained."""
        async with transaction(self._store) as tx:
            keys = [row.key for row in await tx.rows.nodes() if row.drain is not None and not row.drain.drained]
        for key in keys:
            async with transaction(self._store) as tx:
                await self._go_on(tx, key)
        if keys:
            self._committed()

    async def _go_on(self, tx: Transaction, key: NodeKey) -> None:
        row = next((row for row in await tx.nodes(key.cluster) if row.key == key), None)
        cluster = await tx.cluster(key.cluster)
        if row is None or row.drain is None or cluster is None:
            return
        records = await tx.rows.vms_on(key)
        if not records:
            self._finish(tx, key, row.drain)
            return
        found = drain.look(
            key.node,
            records,
            parallel=row.drain.parallel,
            asked={record.vm: self._asked[record.key] for record in records if record.key in self._asked},
            now=self._clock.now(),
            cluster=cluster,
            candidates=await tx.candidates(key.cluster),
        )
        if found.progress != row.drain.said:
            tx.put_drain(key, row.drain.model_copy(update={"said": found.progress}))
            self._say(tx, NodeDraining(cluster=key.cluster, node=key.node, **dict(found.progress)), row.drain)
        for vm in found.moves:
            self._asked[VmKey(key.cluster, vm)] = self._clock.now()
            self._say(tx, VmMigrateRequested(cluster=key.cluster, vm=vm), row.drain)

    def _finish(self, tx: Transaction, key: NodeKey, wanted: Drain) -> None:
        self._asked.clear()
        tx.put_drain(key, wanted.model_copy(update={"drained": True, "said": None}))
        self._say(tx, NodeDrained(cluster=key.cluster, node=key.node), wanted)
        log.info("node.drained", **key._asdict(), trace_id=wanted.trace_id)

    def _say(self, tx: Transaction, event: Event, wanted: Drain) -> None:
        tx.send([outgoing(event, source=SOURCE, trace=Trace(wanted.trace_id), at=self._clock.now())])
