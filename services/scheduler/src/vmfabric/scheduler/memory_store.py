"""A store without Postgres, for the simulation: what is not committed is gone, and rows are locked until the end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.admin import NodeState
from vmfabric.contract.cluster import ClusterSpec, NodeSpec
from vmfabric.contract.envelope import Outgoing
from vmfabric.contract.names import ClusterName, NodeName, VmName
from vmfabric.scheduler.domain.candidate import Usage
from vmfabric.scheduler.domain.record import VmRecord
from vmfabric.scheduler.ports import NodeRow


@dataclass
class Tables:
    """What is committed; it outlives the process."""

    clusters: dict[ClusterName, ClusterSpec] = field(default_factory=dict)
    nodes: dict[tuple[ClusterName, NodeName], NodeRow] = field(default_factory=dict)
    vms: dict[tuple[ClusterName, VmName], VmRecord] = field(default_factory=dict)
    last_requests: dict[tuple[ClusterName, VmName], datetime] = field(default_factory=dict)
    generation: int = 0
    outbox: list[Outgoing] = field(default_factory=list)


class MemoryStore:
    """Transactions on tables in memory."""

    def __init__(self, tables: Tables, *, round_trip: Callable[[], Awaitable[None]]) -> None:
        self._tables = tables
        self._round_trip = round_trip
        self._locks: dict[object, asyncio.Lock] = {}
        self.on_commit: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["MemoryTransaction"]:
        """Commits at the end of the block."""
        async with AsyncExitStack() as held:
            tx = MemoryTransaction(self._tables, self._round_trip, self._locks, held)
            yield tx
            await self._round_trip()
            tx.commit()
        self.on_commit()


class MemoryTransaction:
    """Reads see the transaction's own writes."""

    def __init__(
        self,
        tables: Tables,
        round_trip: Callable[[], Awaitable[None]],
        locks: dict[object, asyncio.Lock],
        held: AsyncExitStack,
    ) -> None:
        self._tables = tables
        self._round_trip = round_trip
        self._locks = locks
        self._held = held
        self._mine: set[object] = set()
        self._writes: list[Callable[[Tables], None]] = []

    def commit(self) -> None:
        """Everything at once."""
        for write in self._writes:
            write(self._tables)

    async def cluster(self, name: ClusterName) -> ClusterSpec | None:
        await self._round_trip()
        return self._tables.clusters.get(name)

    async def clusters(self) -> Sequence[ClusterSpec]:
        await self._round_trip()
        return [self._tables.clusters[name] for name in sorted(self._tables.clusters)]

    async def save_cluster(self, spec: ClusterSpec) -> None:
        await self._round_trip()
        self._writes.append(lambda tables: tables.clusters.update({spec.name: spec}))

    async def node(self, cluster: ClusterName, name: NodeName) -> NodeRow | None:
        await self._round_trip()
        return self._tables.nodes.get((cluster, name))

    async def nodes(self, cluster: ClusterName | None = None, *, claim: bool = False) -> Sequence[NodeRow]:
        if claim:
            await self._lock(("claim", cluster))
        await self._round_trip()
        return [self._tables.nodes[key] for key in sorted(self._tables.nodes) if cluster in {None, key[0]}]

    async def save_node(self, spec: NodeSpec) -> None:
        await self._round_trip()

        def write(tables: Tables) -> None:
            key = (spec.cluster, spec.name)
            found = tables.nodes.get(key) or NodeRow(spec, NodeState.APPLIED, None, (), Usage())
            tables.nodes[key] = replace(found, spec=spec)

        self._writes.append(write)

    async def save_node_state(
        self,
        cluster: ClusterName,
        name: NodeName,
        state: NodeState,
        heard_at: datetime | None,
        addresses: Sequence[HostAddress],
    ) -> None:
        await self._round_trip()

        def write(tables: Tables) -> None:
            found = tables.nodes[cluster, name]
            tables.nodes[cluster, name] = replace(found, state=state, heard_at=heard_at, addresses=tuple(addresses))

        self._writes.append(write)

    async def vm(self, cluster: ClusterName, name: VmName) -> VmRecord | None:
        await self._lock(("vm", cluster, name))
        await self._round_trip()
        return self._tables.vms.get((cluster, name))

    async def vms(self, cluster: ClusterName | None, after: tuple[str, str], limit: int) -> Sequence[VmRecord]:
        await self._round_trip()
        keys = [key for key in sorted(self._tables.vms) if key > after and cluster in {None, key[0]}]
        return [self._tables.vms[key] for key in keys[:limit]]

    async def add_vm(self, record: VmRecord) -> None:
        await self._round_trip()

        def write(tables: Tables) -> None:
            if (record.cluster, record.vm) in tables.vms:
                raise ValueError(f"{record.cluster}/{record.vm} is there already")
            tables.vms[record.cluster, record.vm] = record
            _use(tables, record, 1)

        self._writes.append(write)

    async def save_vm(self, record: VmRecord) -> None:
        await self._round_trip()
        self._writes.append(lambda tables: tables.vms.update({(record.cluster, record.vm): record}))

    async def remove_vm(self, record: VmRecord) -> None:
        await self._round_trip()

        def write(tables: Tables) -> None:
            del tables.vms[record.cluster, record.vm]
            _use(tables, record, -1)

        self._writes.append(write)

    async def due_vms(self, now: datetime, limit: int) -> Sequence[tuple[ClusterName, VmName]]:
        await self._round_trip()
        return [key for key, record in sorted(self._tables.vms.items()) if record.waiting.is_due(now)][:limit]

    async def last_request(self, cluster: ClusterName, name: VmName) -> datetime | None:
        await self._round_trip()
        return self._tables.last_requests.get((cluster, name))

    async def keep_last_request(self, cluster: ClusterName, name: VmName, at: datetime) -> None:
        await self._round_trip()
        self._writes.append(lambda tables: tables.last_requests.update({(cluster, name): at}))

    async def forget_requests(self, before: datetime) -> None:
        await self._round_trip()

        def write(tables: Tables) -> None:
            tables.last_requests = {key: at for key, at in tables.last_requests.items() if at >= before}

        self._writes.append(write)

    async def next_generation(self) -> int:
        # As a sequence of Postgres: a number is used up even when the transaction is rolled back.
        await self._round_trip()
        self._tables.generation += 1
        return self._tables.generation

    async def send(self, messages: Sequence[Outgoing]) -> None:
        await self._round_trip()
        self._writes.append(lambda tables: tables.outbox.extend(messages))

    async def is_sending(self) -> bool:
        await self._round_trip()
        return bool(self._tables.outbox)

    async def _lock(self, key: object) -> None:
        if key not in self._mine:
            self._mine.add(key)
            await self._held.enter_async_context(self._locks.setdefault(key, asyncio.Lock()))


def _use(tables: Tables, record: VmRecord, sign: int) -> None:
    key = (record.cluster, record.node)
    row, size = tables.nodes[key], record.request
    used = Usage(
        row.used.cpu + sign * size.cpu,
        row.used.memory_mb + sign * size.memory_mb,
        row.used.disk_gb + sign * size.disk_gb,
        row.used.vms + sign,
    )
    tables.nodes[key] = replace(row, used=used)
