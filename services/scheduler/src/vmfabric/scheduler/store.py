"""The scheduler's tables in Postgres."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.admin import NodeState
from vmfabric.contract.cluster import ClusterSpec, NodeSpec
from vmfabric.contract.envelope import Outgoing
from vmfabric.contract.names import ClusterName, NodeName, VmName
from vmfabric.database import outbox
from vmfabric.database.pool import Connection
from vmfabric.scheduler.domain.candidate import Usage
from vmfabric.scheduler.domain.record import VmRecord
from vmfabric.scheduler.ports import NodeRow

_NODE = "spec::text AS spec, state, heard_at, addresses, used_cpu, used_memory_mb, used_disk_gb, vms"


class PostgresStore:
    """Transactions on a pool; `on_commit` is told after each."""

    def __init__(self, pool: asyncpg.Pool, on_commit: Callable[[], None]) -> None:
        self._pool = pool
        self._on_commit = on_commit

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["PostgresTransaction"]:
        """Commits at the end of the block, rolls back when it raises."""
        async with self._pool.acquire() as connection, connection.transaction():
            yield PostgresTransaction(connection)
        self._on_commit()


class PostgresTransaction:
    """The statements; see `ports.Transaction`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def cluster(self, name: ClusterName) -> ClusterSpec | None:
        text = await self._connection.fetchval("SELECT spec::text FROM cluster WHERE name = $1", name)
        return ClusterSpec.model_validate_json(text) if text else None

    async def clusters(self) -> Sequence[ClusterSpec]:
        rows = await self._connection.fetch("SELECT spec::text FROM cluster ORDER BY name")
        return [ClusterSpec.model_validate_json(row[0]) for row in rows]

    async def save_cluster(self, spec: ClusterSpec) -> None:
        await self._connection.execute(
            "INSERT INTO cluster (name, spec) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET spec = $2",
            spec.name,
            spec.model_dump(mode="json"),
        )

    async def node(self, cluster: ClusterName, name: NodeName) -> NodeRow | None:
        row = await self._connection.fetchrow(
            f"SELECT {_NODE} FROM node WHERE cluster = $1 AND name = $2",  # noqa: S608
            cluster,
            name,
        )
        return _node(row) if row else None

    async def nodes(self, cluster: ClusterName | None = None, *, claim: bool = False) -> Sequence[NodeRow]:
        lock = " FOR NO KEY UPDATE" if claim else ""
        rows = await self._connection.fetch(
            f"SELECT {_NODE} FROM node WHERE $1::text IS NULL OR cluster = $1 ORDER BY cluster, name{lock}",  # noqa: S608
            cluster,
        )
        return [_node(row) for row in rows]

    async def save_node(self, spec: NodeSpec) -> None:
        await self._connection.execute(
            "INSERT INTO node (cluster, name, spec) VALUES ($1, $2, $3) "
            "ON CONFLICT (cluster, name) DO UPDATE SET spec = $3",
            spec.cluster,
            spec.name,
            spec.model_dump(mode="json"),
        )

    async def save_node_state(
        self,
        cluster: ClusterName,
        name: NodeName,
        state: NodeState,
        heard_at: datetime | None,
        addresses: Sequence[HostAddress],
    ) -> None:
        await self._connection.execute(
            "UPDATE node SET state = $3, heard_at = $4, addresses = $5 WHERE cluster = $1 AND name = $2",
            cluster,
            name,
            state,
            heard_at,
            list(addresses),
        )

    async def vm(self, cluster: ClusterName, name: VmName) -> VmRecord | None:
        text = await self._connection.fetchval(
            "SELECT record::text FROM vm WHERE cluster = $1 AND name = $2 FOR UPDATE", cluster, name
        )
        return VmRecord.model_validate_json(text) if text else None

    async def vms(self, cluster: ClusterName | None, after: tuple[str, str], limit: int) -> Sequence[VmRecord]:
        rows = await self._connection.fetch(
            "SELECT record::text FROM vm WHERE ($1::text IS NULL OR cluster = $1) AND (cluster, name) > ($2, $3) "
            "ORDER BY cluster, name LIMIT $4",
            cluster,
            *after,
            limit,
        )
        return [VmRecord.model_validate_json(row[0]) for row in rows]

    async def add_vm(self, record: VmRecord) -> None:
        await self._connection.execute(
            "INSERT INTO vm (cluster, name, node, generation, phase, due, record) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7)",
            *(record.cluster, record.vm, record.node, record.generation),
            *_changing(record),
        )
        await self._use(record, 1)

    async def save_vm(self, record: VmRecord) -> None:
        await self._connection.execute(
            "UPDATE vm SET phase = $3, due = $4, record = $5 WHERE cluster = $1 AND name = $2",
            record.cluster,
            record.vm,
            *_changing(record),
        )

    async def remove_vm(self, record: VmRecord) -> None:
        await self._connection.execute("DELETE FROM vm WHERE cluster = $1 AND name = $2", record.cluster, record.vm)
        await self._use(record, -1)

    async def due_vms(self, now: datetime, limit: int) -> Sequence[tuple[ClusterName, VmName]]:
        rows = await self._connection.fetch(
            "SELECT cluster, name FROM vm WHERE due <= $1 ORDER BY due LIMIT $2", now, limit
        )
        return [(row["cluster"], row["name"]) for row in rows]

    async def last_request(self, cluster: ClusterName, name: VmName) -> datetime | None:
        at: datetime | None = await self._connection.fetchval(
            "SELECT at FROM last_request WHERE cluster = $1 AND vm = $2", cluster, name
        )
        return at

    async def keep_last_request(self, cluster: ClusterName, name: VmName, at: datetime) -> None:
        await self._connection.execute(
            "INSERT INTO last_request (cluster, vm, at) VALUES ($1, $2, $3) "
            "ON CONFLICT (cluster, vm) DO UPDATE SET at = greatest(last_request.at, $3)",
            cluster,
            name,
            at,
        )

    async def forget_requests(self, before: datetime) -> None:
        await self._connection.execute("DELETE FROM last_request WHERE at < $1", before)

    async def next_generation(self) -> int:
        generation: int = await self._connection.fetchval("SELECT nextval('generation')")
        return generation

    async def send(self, messages: Sequence[Outgoing]) -> None:
        await outbox.add(self._connection, messages)

    async def is_sending(self) -> bool:
        waiting: bool = await self._connection.fetchval("SELECT EXISTS (SELECT FROM outbox)")
        return waiting

    async def _use(self, record: VmRecord, sign: int) -> None:
        size = record.request
        await self._connection.execute(
            "UPDATE node SET used_cpu = used_cpu + $3, used_memory_mb = used_memory_mb + $4, "
            "used_disk_gb = used_disk_gb + $5, vms = vms + $6 WHERE cluster = $1 AND name = $2",
            *(record.cluster, record.node),
            *(sign * size.cpu, sign * size.memory_mb, sign * size.disk_gb, sign),
        )


def _changing(record: VmRecord) -> tuple[str, datetime | None, dict[str, Any]]:
    return record.phase, record.waiting.due, record.model_dump(mode="json")


def _node(row: asyncpg.Record) -> NodeRow:
    return NodeRow(
        spec=NodeSpec.model_validate_json(row["spec"]),
        state=NodeState(row["state"]),
        heard_at=row["heard_at"],
        addresses=tuple(address.ip if hasattr(address, "ip") else address for address in row["addresses"]),
        used=Usage(row["used_cpu"], row["used_memory_mb"], row["used_disk_gb"], row["vms"]),
    )
