"""The scheduler's tables in Postgres."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import lru_cache

import asyncpg

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.admin import NodeState
from vmfabric.contract.cluster import ClusterSpec, NodeSpec
from vmfabric.contract.names import ClusterName, ResourceName
from vmfabric.contract.placement import PlacementDecision
from vmfabric.database import outbox
from vmfabric.database.pool import Connection
from vmfabric.scheduler.domain.candidate import Usage
from vmfabric.scheduler.domain.changes import Changes, Heard, LeftKey, NodeKey
from vmfabric.scheduler.domain.drain import Drain
from vmfabric.scheduler.domain.record import LeftBehind, Stamp, VmKey, VmRecord
from vmfabric.scheduler.ports import NodeRow

_SPECS = 20_000
"""Nodes whose specification is not read anew as long as its text is the same."""

_NODES = """
SELECT spec::text AS spec, state, heard_at, addresses, problem, used_cpu, used_memory_mb, used_disk_gb, vms,
    drain::text AS drain
FROM node WHERE $1::text IS NULL OR cluster = $1 ORDER BY cluster, name
"""
_NODES_LOCKED = f"{_NODES} FOR NO KEY UPDATE"

_LOCK_VMS = """
SELECT vm.record::text FROM vm JOIN unnest($1::text[], $2::text[]) AS asked (cluster, name) USING (cluster, name)
ORDER BY cluster, name FOR UPDATE OF vm
"""
_LAST_REQUESTS = """
SELECT cluster, name, at, sequence
FROM last_request JOIN unnest($1::text[], $2::text[]) AS asked (cluster, name) USING (cluster, name)
"""
_ADD_VMS = """
INSERT INTO vm (cluster, name, node, generation, phase, due, record, decision)
SELECT cluster, name, node, generation, phase, due, record::jsonb, decision::jsonb
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[], $7::text[], $8::text[])
    AS now (cluster, name, node, generation, phase, due, record, decision)
"""
_SAVE_VMS = """
UPDATE vm
SET node = now.node, generation = now.generation, phase = now.phase, due = now.due, record = now.record::jsonb
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[], $7::text[])
    AS now (cluster, name, node, generation, phase, due, record)
WHERE vm.cluster = now.cluster AND vm.name = now.name
"""
_DECIDE = """
UPDATE vm SET decision = now.decision::jsonb
FROM unnest($1::text[], $2::text[], $3::text[]) AS now (cluster, name, decision)
WHERE vm.cluster = now.cluster AND vm.name = now.name
"""
_IN_GROUPS = """
SELECT record::text FROM vm WHERE cluster = $1 AND groups <> '[]' AND groups ?| $2::text[] ORDER BY name
"""
_REMOVE_VMS = """
DELETE FROM vm USING unnest($1::text[], $2::text[]) AS gone (cluster, name)
WHERE vm.cluster = gone.cluster AND vm.name = gone.name
"""
_REMOVE_NODES = """
DELETE FROM node USING unnest($1::text[], $2::text[]) AS gone (cluster, name)
WHERE node.cluster = gone.cluster AND node.name = gone.name
"""
_USE = """
UPDATE node SET used_cpu = used_cpu + $3, used_memory_mb = used_memory_mb + $4, used_disk_gb = used_disk_gb + $5,
    vms = vms + $6 WHERE cluster = $1 AND name = $2
"""
_KEEP_LAST_REQUESTS = """
INSERT INTO last_request (cluster, name, at, sequence)
SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[])
ON CONFLICT (cluster, name) DO UPDATE SET at = excluded.at, sequence = excluded.sequence
"""
_HEARD = "UPDATE node SET state = $3, heard_at = $4, addresses = $5, problem = $6 WHERE cluster = $1 AND name = $2"
_DRAIN = "UPDATE node SET drain = $3::text::jsonb WHERE cluster = $1 AND name = $2"
_VMS_ON = """
SELECT record::text FROM vm WHERE cluster = $1 AND node = $2
UNION ALL
SELECT record::text FROM vm WHERE cluster = $1 AND node <> $2 AND record -> 'move' -> 'desired' ->> 'node' = $2
"""
_LEAVE_BEHIND = """
INSERT INTO left_behind (cluster, vm, node, record) VALUES ($1, $2, $3, $4::text::jsonb)
ON CONFLICT (cluster, vm, node) DO UPDATE SET record = excluded.record
"""
_LET_GO = "DELETE FROM left_behind WHERE cluster = $1 AND vm = $2 AND node = $3"
_PUT_CLUSTER = """
INSERT INTO cluster (name, spec) VALUES ($1, $2::text::jsonb)
ON CONFLICT (name) DO UPDATE SET spec = excluded.spec
"""
_PUT_NODE = """
INSERT INTO node (cluster, name, spec) VALUES ($1, $2, $3::text::jsonb)
ON CONFLICT (cluster, name) DO UPDATE SET spec = excluded.spec
"""


class PostgresStore:
    """Transactions on a pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def rows(self) -> AsyncIterator["PostgresRows"]:
        """Commits at the end of the block, rolls back when it raises."""
        async with self._pool.acquire() as connection, connection.transaction():
            yield PostgresRows(connection)


class PostgresRows:
    """The statements; see `ports.Rows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def clusters(self) -> Sequence[ClusterSpec]:
        rows = await self._connection.fetch("SELECT spec::text FROM cluster ORDER BY name")
        return [ClusterSpec.model_validate_json(row[0]) for row in rows]

    async def nodes(self, cluster: ClusterName | None = None, *, lock: bool = False) -> Sequence[NodeRow]:
        rows = await self._connection.fetch(_NODES_LOCKED if lock else _NODES, cluster)
        return [_node(row) for row in rows]

    async def lock_vms(self, keys: Collection[VmKey]) -> Mapping[VmKey, VmRecord]:
        rows = await self._connection.fetch(_LOCK_VMS, *_columns(keys, 2))
        records = [VmRecord.model_validate_json(row[0]) for row in rows]
        return {record.key: record for record in records}

    async def vm(self, key: VmKey) -> VmRecord | None:
        text = await self._connection.fetchval("SELECT record::text FROM vm WHERE cluster = $1 AND name = $2", *key)
        return VmRecord.model_validate_json(text) if text else None

    async def decision(self, key: VmKey) -> PlacementDecision | None:
        text = await self._connection.fetchval("SELECT decision::text FROM vm WHERE cluster = $1 AND name = $2", *key)
        return PlacementDecision.model_validate_json(text) if text else None

    async def vms_in_groups(self, cluster: ClusterName, groups: Collection[ResourceName]) -> Sequence[VmRecord]:
        rows = await self._connection.fetch(_IN_GROUPS, cluster, list(groups))
        return [VmRecord.model_validate_json(row[0]) for row in rows]

    async def vm_with(self, address: HostAddress) -> VmKey | None:
        row = await self._connection.fetchrow(
            "SELECT cluster, name FROM vm WHERE record -> 'addresses' @> $1", [{"address": str(address)}]
        )
        return VmKey(*row) if row else None

    async def vms(self, cluster: ClusterName | None, after: tuple[str, str], limit: int) -> Sequence[VmRecord]:
        rows = await self._connection.fetch(
            "SELECT record::text FROM vm WHERE ($1::text IS NULL OR cluster = $1) AND (cluster, name) > ($2, $3) "
            "ORDER BY cluster, name LIMIT $4",
            cluster,
            *after,
            limit,
        )
        return [VmRecord.model_validate_json(row[0]) for row in rows]

    async def vms_on(self, node: NodeKey) -> Sequence[VmRecord]:
        rows = await self._connection.fetch(_VMS_ON, *node)
        records = [VmRecord.model_validate_json(row[0]) for row in rows]
        return sorted((record for record in records if node.node in record.nodes()), key=lambda record: record.key)

    async def due_vms(self, now: datetime, limit: int) -> Sequence[VmKey]:
        rows = await self._connection.fetch(
            "SELECT cluster, name FROM vm WHERE due <= $1 ORDER BY due LIMIT $2", now, limit
        )
        return [VmKey(*row) for row in rows]

    async def last_requests(self, keys: Collection[VmKey]) -> Mapping[VmKey, Stamp]:
        rows = await self._connection.fetch(_LAST_REQUESTS, *_columns(keys, 2))
        return {VmKey(row["cluster"], row["name"]): Stamp(row["at"], row["sequence"]) for row in rows}

    async def last_generation(self) -> int:
        return int(await self._connection.fetchval("SELECT generation FROM last_generation"))

    async def raise_generation(self, least: int) -> None:
        await self._connection.execute("UPDATE last_generation SET generation = greatest(generation, $1)", least)

    async def new_generations(self, count: int) -> Sequence[int]:
        last = await self._connection.fetchval(
            "UPDATE last_generation SET generation = generation + $1 RETURNING generation", count
        )
        return range(last - count + 1, last + 1)

    async def left_behind(self, vm: VmKey | None = None) -> Sequence[LeftBehind]:
        rows = await self._connection.fetch(
            "SELECT record::text FROM left_behind WHERE ($1::text IS NULL OR (cluster, vm) = ($1, $2)) "
            "ORDER BY cluster, vm, node",
            *(vm or (None, None)),
        )
        return [LeftBehind.model_validate_json(row[0]) for row in rows]

    async def waiting_subjects(self) -> Collection[str]:
        rows = await self._connection.fetch("SELECT DISTINCT subject FROM outbox")
        return frozenset(row[0] for row in rows)

    async def write(self, changes: Changes) -> None:
        for cluster in changes.clusters.values():
            await self._connection.execute(_PUT_CLUSTER, cluster.name, cluster.model_dump_json())
        for key, node in changes.nodes.items():
            await self._connection.execute(_PUT_NODE, *key, node.model_dump_json())
        for key, heard in sorted(changes.heard.items()):
            values = (heard.state, heard.at, list(heard.addresses), heard.problem)
            await self._connection.execute(_HEARD, *key, *values)
        for key, drain in sorted(changes.drains.items()):
            await self._connection.execute(_DRAIN, *key, drain and drain.model_dump_json())
        await self._many(_REMOVE_VMS, changes.gone, 2)
        decided = {key: decision.model_dump_json(exclude_none=True) for key, decision in changes.decisions.items()}
        added = ((*_columns_of(record), decided.pop(key, None)) for key, record in changes.new_vms.items())
        await self._many(_ADD_VMS, added, 8)
        await self._many(_SAVE_VMS, map(_columns_of, changes.vms.values()), 7)
        await self._many(_DECIDE, ((*key, decision) for key, decision in decided.items()), 3)
        for left in sorted(changes.left_behind):
            await self._leave_behind(left, changes.left_behind[left])
        for key, used in sorted(changes.used.items()):
            await self._connection.execute(_USE, *key, used.cpu, used.memory_mb, used.disk_gb, used.vms)
        await self._many(_REMOVE_NODES, changes.gone_nodes, 2)
        await self._many(_KEEP_LAST_REQUESTS, ((*key, *stamp) for key, stamp in changes.last_requests.items()), 4)
        if changes.forget_before is not None:
            await self._connection.execute("DELETE FROM last_request WHERE at < $1", changes.forget_before)
        await outbox.add(self._connection, changes.messages)

    async def _leave_behind(self, key: LeftKey, value: LeftBehind | None) -> None:
        if value is None:
            await self._connection.execute(_LET_GO, *key.vm, key.node)
        else:
            await self._connection.execute(_LEAVE_BEHIND, *key.vm, key.node, value.model_dump_json())

    async def _many(self, statement: str, rows: Iterable[tuple[object, ...]], width: int) -> None:
        columns = _columns(rows, width)
        if columns[0]:
            await self._connection.execute(statement, *columns)


def _columns(rows: Iterable[tuple[object, ...]], width: int) -> list[list[object]]:
    listed = list(rows)
    return [[row[index] for row in listed] for index in range(width)]


def _columns_of(record: VmRecord) -> tuple[object, ...]:
    waiting = record.waiting.due
    return (*record.key, record.node, record.generation, record.phase, waiting, record.model_dump_json())


@lru_cache(maxsize=_SPECS)
def _spec(text: str) -> NodeSpec:
    return NodeSpec.model_validate_json(text)


def _node(row: asyncpg.Record) -> NodeRow:
    addresses = tuple(address.ip if hasattr(address, "ip") else address for address in row["addresses"])
    return NodeRow(
        spec=_spec(row["spec"]),
        heard=Heard(NodeState(row["state"]), row["heard_at"], addresses, row["problem"]),
        used=Usage(row["used_cpu"], row["used_memory_mb"], row["used_disk_gb"], row["vms"]),
        drain=Drain.model_validate_json(row["drain"]) if row["drain"] else None,
    )
