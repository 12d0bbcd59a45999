"""The services' own stores in memory, with a way that is slow, breaks, and may be cut at every call."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from simulation.faults import Fault, Faults
from simulation.process import Process
from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.envelope import Outgoing
from vmfabric.contract.names import ResourceName
from vmfabric.contract.pool import NetworkSpec, PoolSpec
from vmfabric.database.outbox import Relay, Stored
from vmfabric.ipam.domain.changes import Changes, Holding
from vmfabric.ipam.domain.keeping import InUse
from vmfabric.ipam.domain.lease import Lease, VmKey
from vmfabric.ipam.memory_store import InMemoryStore, TwiceError
from vmfabric.ipam.ports import Content
from vmfabric.scheduler.memory_store import MemoryStore, Tables
from vmfabric.scheduler.ports import Rows


@dataclass(frozen=True, slots=True)
class _Way:
    """From a process to its database and back."""

    process: Process
    faults: Faults

    async def there(self) -> None:
        await self.process.point()
        if self.faults.roll(Fault.STORE_AWAY):
            raise ConnectionResetError("the database is away")

    def back(self) -> None:
        if self.faults.roll(Fault.COMMIT_UNKNOWN):
            raise ConnectionResetError("the connection was lost behind the commit")


class SchedulerStore:
    """A connection of one life of the scheduler."""

    def __init__(self, tables: Tables, process: Process, faults: Faults, *, committed: Callable[[], None]) -> None:
        self._way = _Way(process, faults)
        self._store = MemoryStore(tables, round_trip=self._way.there)
        self._committed = committed

    @asynccontextmanager
    async def rows(self) -> AsyncIterator[Rows]:
        """Commits at the end of the block, rolls back when it raises."""
        async with self._store.rows() as rows:
            yield rows
        self._committed()
        self._way.back()


class IpamStore:
    """A connection of one life of ipam."""

    def __init__(
        self, kept: InMemoryStore, outbox: "OutboxRows", relay: Relay, process: Process, faults: Faults, *,
        committed: Callable[[], None], guarded: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._kept = kept
        self._outbox = outbox
        self._relay = relay
        self._way = _Way(process, faults)
        self._committed = committed
        self._guarded = guarded

    async def load(self) -> Content:
        await self._way.there()
        return await self._kept.load()

    async def leases(self, keys: Collection[VmKey]) -> Mapping[VmKey, Lease]:
        await self._way.there()
        return await self._kept.leases(keys)

    async def holdings(self, addresses: Collection[HostAddress]) -> Sequence[Holding]:
        await self._way.there()
        return await self._kept.holdings(addresses)

    async def in_use(self, pool: ResourceName) -> Sequence[InUse]:
        await self._way.there()
        return await self._kept.in_use(pool)

    async def commit(self, changes: Changes, messages: Sequence[Outgoing]) -> None:
        await self._way.there()
        try:
            await self._kept.commit(changes, messages)
        except TwiceError as error:
            self._guarded(f"only the last guard of ipam's store kept something from being there twice: {error}")
            raise
        self._committed()
        stored = self._outbox.last(len(messages))
        await self._back()
        self._relay.offer(stored)

    async def put_network(self, spec: NetworkSpec, messages: Sequence[Outgoing]) -> None:
        await self._way.there()
        await self._kept.put_network(spec, messages)
        await self._back()
        self._relay.wake()

    async def put_pool(self, spec: PoolSpec, messages: Sequence[Outgoing]) -> None:
        await self._way.there()
        await self._kept.put_pool(spec, messages)
        await self._back()
        self._relay.wake()

    async def delete_network(self, name: ResourceName) -> None:
        await self._way.there()
        await self._kept.delete_network(name)
        await self._back()

    async def delete_pool(self, name: ResourceName, messages: Sequence[Outgoing]) -> None:
        await self._way.there()
        await self._kept.delete_pool(name, messages)
        await self._back()
        self._relay.wake()

    async def forget(self, *, fences_before: datetime, history_before: datetime) -> None:
        await self._way.there()
        await self._kept.forget(fences_before=fences_before, history_before=history_before)

    async def _back(self) -> None:
        await self._way.process.point()
        self._way.back()


class OutboxRows:
    """The table `outbox`, over the list to which a store appends what it commits."""

    def __init__(self, messages: list[Outgoing]) -> None:
        self._messages = messages
        self._ids: list[int] = []
        self._next = 1

    def of(self, process: Process, faults: Faults) -> "_OutboxPool":
        """A connection of one life of the relay."""
        return _OutboxPool(self, _Way(process, faults))

    def rows(self) -> list[Stored]:
        """All of it, oldest first."""
        new = len(self._messages) - len(self._ids)
        self._ids += range(self._next, self._next + new)
        self._next += new
        return [Stored(identity, message) for identity, message in zip(self._ids, self._messages, strict=True)]

    def last(self, count: int) -> list[Stored]:
        """What has just been committed."""
        return self.rows()[-count:] if count else []

    def take_out(self, ids: Collection[int]) -> None:
        """These are published."""
        kept = [row for row in self.rows() if row.id not in ids]
        self._messages[:] = [row.message for row in kept]
        self._ids[:] = [row.id for row in kept]


class _OutboxPool:
    def __init__(self, outbox: OutboxRows, way: _Way) -> None:
        self._outbox = outbox
        self._way = way

    async def fetch(self, _statement: str, limit: int) -> list[dict[str, Any]]:
        await self._way.there()
        return [
            {"id": row.id, "subject": row.message.subject, "headers": row.message.headers, "body": row.message.body}
            for row in self._outbox.rows()[:limit]
        ]

    async def execute(self, _statement: str, ids: Sequence[int]) -> None:
        await self._way.there()
        self._outbox.take_out(frozenset(ids))
        await self._way.process.point()
        self._way.back()
