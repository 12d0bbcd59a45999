"""A store without Postgres, for simulations: what is not committed is gone, and rows are locked until the end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.admin import NodeState
from vmfabric.contract.cluster import ClusterSpec
from vmfabric.contract.envelope import Outgoing
from vmfabric.contract.names import ClusterName, ResourceName
from vmfabric.contract.placement import PlacementDecision
from vmfabric.scheduler.domain.candidate import Usage
from vmfabric.scheduler.domain.changes import Changes, Heard, LeftKey, NodeKey
from vmfabric.scheduler.domain.record import LeftBehind, Stamp, VmKey, VmRecord
from vmfabric.scheduler.domain.wish import groups_of
from vmfabric.scheduler.ports import NodeRow


class ConstraintError(Exception):
    """What a constraint of the database would say."""


@dataclass
class Tables:
    """What is committed; it outlives the process."""

    clusters: dict[ClusterName, ClusterSpec] = field(default_factory=dict)
    nodes: dict[NodeKey, NodeRow] = field(default_factory=dict)
    vms: dict[VmKey, VmRecord] = field(default_factory=dict)
    decisions: dict[VmKey, PlacementDecision] = field(default_factory=dict)
    last_requests: dict[VmKey, Stamp] = field(default_factory=dict)
    left_behind: dict[LeftKey, LeftBehind] = field(default_factory=dict)
    generation: int = 0
    outbox: list[Outgoing] = field(default_factory=list)
    """Oldest first; whoever publishes takes out what the bus has kept."""
    version: int = 0
    """Higher after each commit that changed anything."""


async def _no_time() -> None:
    """The database answers at once."""


class MemoryStore:
    """Transactions on tables in memory.

    `round_trip` is awaited before each answer of the database and once more after a commit: it may take time, or
    raise what a database that is away would raise. A process that crashes is a task that is cancelled.
    """

    def __init__(self, tables: Tables, *, round_trip: Callable[[], Awaitable[None]] = _no_time) -> None:
        self._tables = tables
        self._round_trip = round_trip
        self._locks: dict[tuple[str, VmKey | NodeKey], asyncio.Lock] = {}

    @asynccontextmanager
    async def rows(self) -> AsyncIterator["MemoryRows"]:
        """Commits at the end of the block, rolls back when it raises."""
        async with AsyncExitStack() as held:
            rows = MemoryRows(self._tables, self._round_trip, self._locks, held)
            yield rows
            rows.commit()
            await self._round_trip()


class MemoryRows:
    """The same answers as the statements give; see `ports.Rows`."""

    def __init__(
        self,
        tables: Tables,
        round_trip: Callable[[], Awaitable[None]],
        locks: dict[tuple[str, VmKey | NodeKey], asyncio.Lock],
        held: AsyncExitStack,
    ) -> None:
        self._tables = tables
        self._round_trip = round_trip
        self._locks = locks
        self._held = held
        self._mine: set[tuple[str, VmKey | NodeKey]] = set()
        self._written: Changes | None = None

    def commit(self) -> None:
        """Everything at once, or nothing. ConstraintError when it cannot be."""
        if self._written is None or self._written == Changes():
            return
        _check(self._tables, self._written)
        _apply(self._tables, self._written)
        self._tables.version += 1

    async def clusters(self) -> Sequence[ClusterSpec]:
        await self._round_trip()
        return [self._tables.clusters[name] for name in sorted(self._tables.clusters)]

    async def nodes(self, cluster: ClusterName | None = None, *, lock: bool = False) -> Sequence[NodeRow]:
        await self._round_trip()
        keys = [key for key in sorted(self._tables.nodes) if cluster in {None, key.cluster}]
        if lock:
            await self._lock([("node", key) for key in keys])
        return [self._tables.nodes[key] for key in keys if key in self._tables.nodes]

    async def lock_vms(self, keys: Collection[VmKey]) -> Mapping[VmKey, VmRecord]:
        await self._round_trip()
        # As in Postgres, a row that is not there cannot be locked; one that goes while we wait is not found.
        await self._lock([("vm", key) for key in sorted(keys) if key in self._tables.vms])
        return {key: self._tables.vms[key] for key in keys if key in self._tables.vms}

    async def vm(self, key: VmKey) -> VmRecord | None:
        await self._round_trip()
        return self._tables.vms.get(key)

    async def decision(self, key: VmKey) -> PlacementDecision | None:
        await self._round_trip()
        return self._tables.decisions.get(key)

    async def vms_in_groups(self, cluster: ClusterName, groups: Collection[ResourceName]) -> Sequence[VmRecord]:
        await self._round_trip()
        found = (vm for key, vm in sorted(self._tables.vms.items()) if key.cluster == cluster)
        return [vm for vm in found if not groups_of(vm.request).isdisjoint(groups)]

    async def vm_with(self, address: HostAddress) -> VmKey | None:
        await self._round_trip()
        found = (key for key, vm in self._tables.vms.items() if address in {held.address for held in vm.addresses})
        return next(found, None)

    async def vms(self, cluster: ClusterName | None, after: tuple[str, str], limit: int) -> Sequence[VmRecord]:
        await self._round_trip()
        keys = [key for key in sorted(self._tables.vms) if key > after and cluster in {None, key.cluster}]
        return [self._tables.vms[key] for key in keys[:limit]]

    async def vms_on(self, node: NodeKey) -> Sequence[VmRecord]:
        await self._round_trip()
        found = (vm for key, vm in sorted(self._tables.vms.items()) if key.cluster == node.cluster)
        return [vm for vm in found if node.node in vm.nodes()]

    async def due_vms(self, now: datetime, limit: int) -> Sequence[VmKey]:
        await self._round_trip()
        due = [
            (moment, key)
            for key, record in self._tables.vms.items()
            if (moment := record.waiting.due) is not None and moment <= now
        ]
        return [key for _moment, key in sorted(due)[:limit]]

    async def last_requests(self, keys: Collection[VmKey]) -> Mapping[VmKey, Stamp]:
        await self._round_trip()
        return {key: self._tables.last_requests[key] for key in keys if key in self._tables.last_requests}

    async def last_generation(self) -> int:
        await self._round_trip()
        return self._tables.generation

    async def raise_generation(self, least: int) -> None:
        await self._round_trip()
        self._tables.generation = max(self._tables.generation, least)

    async def new_generations(self, count: int) -> Sequence[int]:
        await self._round_trip()
        first = self._tables.generation + 1
        self._tables.generation += count
        return range(first, first + count)

    async def left_behind(self, vm: VmKey | None = None) -> Sequence[LeftBehind]:
        await self._round_trip()
        return [left for key, left in sorted(self._tables.left_behind.items()) if vm in {None, key.vm}]

    async def waiting_subjects(self) -> Collection[str]:
        await self._round_trip()
        return frozenset(message.subject for message in self._tables.outbox)

    async def write(self, changes: Changes) -> None:
        await self._round_trip()
        self._written = changes

    async def _lock(self, keys: Sequence[tuple[str, VmKey | NodeKey]]) -> None:
        for key in keys:
            if key not in self._mine:
                await self._held.enter_async_context(self._locks.setdefault(key, asyncio.Lock()))
                self._mine.add(key)


def _check(tables: Tables, changes: Changes) -> None:
    for record in changes.new_vms.values():
        if record.key in tables.vms:
            raise ConstraintError(f"{record.key} is there already")
        if NodeKey(record.cluster, record.node) not in tables.nodes:
            raise ConstraintError(f"{record.key} is on {record.node}, which is not there")
    for vm in (tables.vms | changes.vms | changes.new_vms).values():
        if vm.key not in changes.gone and NodeKey(vm.cluster, vm.node) in changes.gone_nodes:
            raise ConstraintError(f"{vm.key} is on {vm.node}, which goes")
    for key, used in changes.used.items():
        if min(_sums(tables.nodes[key].used + used)) < 0:
            raise ConstraintError(f"{key} would carry less than nothing")


def _apply(tables: Tables, changes: Changes) -> None:
    tables.clusters |= changes.clusters
    for key, spec in changes.nodes.items():
        found = tables.nodes.get(key) or NodeRow(spec, Heard(NodeState.APPLIED, None, ()), Usage())
        tables.nodes[key] = replace(found, spec=spec)
    for key, heard in changes.heard.items():
        tables.nodes[key] = replace(tables.nodes[key], heard=heard)
    for key, drain in changes.drains.items():
        tables.nodes[key] = replace(tables.nodes[key], drain=drain)
    for gone in changes.gone:
        del tables.vms[gone]
        tables.decisions.pop(gone, None)
    tables.vms |= changes.new_vms
    tables.vms |= changes.vms
    tables.decisions |= changes.decisions
    tables.left_behind |= {key: left for key, left in changes.left_behind.items() if left is not None}
    for left_key in [key for key, left in changes.left_behind.items() if left is None]:
        tables.left_behind.pop(left_key, None)
    for key, used in changes.used.items():
        tables.nodes[key] = replace(tables.nodes[key], used=tables.nodes[key].used + used)
    for node in changes.gone_nodes:
        del tables.nodes[node]
    tables.last_requests |= changes.last_requests
    if changes.forget_before is not None:
        kept = {key: stamp for key, stamp in tables.last_requests.items() if stamp.at >= changes.forget_before}
        tables.last_requests = kept
    tables.outbox += changes.messages


def _sums(used: Usage) -> tuple[int, ...]:
    return (used.cpu, used.memory_mb, used.disk_gb, used.vms)
