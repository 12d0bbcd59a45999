"""Desired state again from Postgres: the bucket may have lost what it had."""

from collections.abc import Awaitable, Callable, Mapping

import structlog

from vmfabric.ipam.domain.changes import Changes
from vmfabric.ipam.domain.pools import every_desired_pools
from vmfabric.ipam.domain.stock import Stock
from vmfabric.ipam.ports import Store
from vmfabric.ipam.writer import Writer
from vmfabric.runtime.desired import put

EVERY_SECONDS = 60.0

log = structlog.get_logger()

ReadBucket = Callable[[], Awaitable[Mapping[str, bytes]]]


class Republish:
    """Puts every key that the bucket lacks or has otherwise; at start, after a reconnect, and every minute."""

    def __init__(self, writer: Writer, store: Store, read_bucket: ReadBucket) -> None:
        self._writer = writer
        self._store = store
        self._read_bucket = read_bucket

    async def once(self) -> None:
        """Compare, and put what differs. A value that is still in the outbox may be put twice, which harms nobody."""
        found = await self._read_bucket()
        await self._writer.alone(lambda stock: self._put_missing(stock, found))

    async def _put_missing(self, stock: Stock, found: Mapping[str, bytes]) -> None:
        wanted = every_desired_pools(stock.pools)
        missing = [value for value in wanted if found.get(value.key()) != value.to_bytes()]
        if missing:
            await self._store.commit(Changes(), [put(value) for value in missing])
            log.info("republish.put", keys=len(missing), of=len(wanted))
