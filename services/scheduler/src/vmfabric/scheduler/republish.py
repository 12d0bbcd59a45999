"""Desired state again from Postgres: the bucket may have lost what it had."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from vmfabric.contract.desired import DesiredNode, DesiredVm
from vmfabric.contract.errors import TryAgain
from vmfabric.database.pool import TRANSIENT
from vmfabric.runtime.desired import put
from vmfabric.scheduler.domain.cluster import desired_node
from vmfabric.scheduler.ports import Store, Transaction

_PAGE = 500
_CHECK_SECONDS = 60.0
_RETRY_SECONDS = 1.0
_RETRIED: tuple[type[BaseException], ...] = (TryAgain, TimeoutError, *TRANSIENT)

log = structlog.get_logger()

ReadBucket = Callable[[], Awaitable[Mapping[str, bytes]]]


class Republish:
    """Puts every key that the bucket lacks or has otherwise; at start, after a reconnect, and every minute."""

    def __init__(self, store: Store, read_bucket: ReadBucket) -> None:
        self._store = store
        self._read_bucket = read_bucket
        self._now = asyncio.Event()

    def wake(self) -> None:
        """The bus is back."""
        self._now.set()

    async def run(self) -> None:
        """Compare until cancelled."""
        while True:
            self._now.clear()
            pause = _CHECK_SECONDS
            try:
                await self.once()
            except _RETRIED as error:
                log.warning("republish.waits", error=repr(error))
                pause = _RETRY_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._now.wait()
            except TimeoutError:
                continue

    async def once(self) -> int:
        """How many keys were put."""
        async with self._store.transaction() as tx:
            waiting = await tx.is_sending()
        if waiting:
            # What is in the outbox is newer than the bucket; comparing now would put it twice.
            return 0
        found = await self._read_bucket()
        async with self._store.transaction() as tx:
            values = [*await _nodes(tx), *await _vms(tx)]
            missing = [value for value in values if found.get(value.key()) != value.to_bytes()]
            await tx.send([put(value) for value in missing])
        if missing:
            log.info("republish.put", keys=len(missing), of=len(values))
        return len(missing)


async def _nodes(tx: Transaction) -> list[DesiredNode]:
    clusters = {spec.name: spec for spec in await tx.clusters()}
    return [desired_node(clusters[row.spec.cluster], row.spec) for row in await tx.nodes()]


async def _vms(tx: Transaction) -> list[DesiredVm]:
    found: list[DesiredVm] = []
    after = ("", "")
    while records := await tx.vms(None, after, _PAGE):
        found += [record.desired for record in records if record.desired is not None]
        after = (records[-1].cluster, records[-1].vm)
    return found
