"""The services' own stores in memory, with a way that is slow, breaks, and may be cut at every call."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from simulation.faults import Fault, Faults
from simulation.process import Process
from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.envelope import Outgoing
from vmfabric.contract.names import ResourceName
from vmfabric.contract.pool import NetworkSpec, PoolSpec
from vmfabric.ipam.domain.lease import Lease, VmKey
from vmfabric.ipam.domain.leasing import Changes, Holding
from vmfabric.ipam.domain.stock import InUse
from vmfabric.ipam.memory import InMemoryStore, TwiceError
from vmfabric.ipam.ports import Content
from vmfabric.scheduler.memory_store import MemoryStore, Tables


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


def scheduler_store(
    tables: Tables, process: Process, faults: Faults, committed: Sequence[Callable[[], None]]
) -> MemoryStore:
    """A connection of one life of the scheduler."""
    way = _Way(process, faults)
    store = MemoryStore(tables, round_trip=way.there)

    def on_commit() -> None:
        for call in committed:
            call()
        way.back()

    store.on_commit = on_commit
    return store


class IpamStore:
    """A connection of one life of ipam."""

    def __init__(
        self, kept: InMemoryStore, process: Process, faults: Faults, *, committed: Callable[[], None],
        guarded: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._kept = kept
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
        await self._back()

    async def put_network(self, spec: NetworkSpec, messages: Sequence[Outgoing]) -> None:
        await self._way.there()
        await self._kept.put_network(spec, messages)
        await self._back()

    async def put_pool(self, spec: PoolSpec, messages: Sequence[Outgoing]) -> None:
        await self._way.there()
        await self._kept.put_pool(spec, messages)
        await self._back()

    async def forget(self, *, fences_before: datetime, history_before: datetime) -> None:
        await self._way.there()
        await self._kept.forget(fences_before=fences_before, history_before=history_before)

    async def _back(self) -> None:
        await self._way.process.point()
        self._way.back()


class OutboxRows:
    """The two statements that the relay makes on the table `outbox`, on a list that keeps the order of commits."""

    def __init__(self, rows: list[Outgoing]) -> None:
        self.rows = rows
        self._taken_out = 0

    def of(self, process: Process, faults: Faults) -> "_OutboxPool":
        """A connection of one life of the relay."""
        return _OutboxPool(self, _Way(process, faults))

    def oldest(self, limit: int) -> list[dict[str, Any]]:
        """As the table has them."""
        return [
            {"id": self._taken_out + index, "subject": row.subject, "headers": row.headers, "body": row.body}
            for index, row in enumerate(self.rows[:limit])
        ]

    def take_out(self, ids: Sequence[int]) -> None:
        """The relay deletes what it has published, which is what is oldest."""
        count = sum(identity >= self._taken_out for identity in ids)
        del self.rows[:count]
        self._taken_out += count


class _OutboxPool:
    def __init__(self, outbox: OutboxRows, way: _Way) -> None:
        self._outbox = outbox
        self._way = way

    async def fetch(self, _statement: str, limit: int) -> list[dict[str, Any]]:
        await self._way.there()
        return self._outbox.oldest(limit)

    async def execute(self, _statement: str, ids: Sequence[int]) -> None:
        await self._way.there()
        self._outbox.take_out(ids)
        await self._way.process.point()
        self._way.back()
