"""The store in Postgres."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import asyncpg

from vmfabric.contract.addresses import HostAddress, Prefix
from vmfabric.contract.envelope import Outgoing
from vmfabric.contract.ip import AllocatedAddress
from vmfabric.contract.names import ClusterName, ResourceName, VmName
from vmfabric.contract.pool import NetworkSpec, PoolSpec
from vmfabric.database.outbox import Relay, Stored, add
from vmfabric.ipam.domain.lease import Lease, State, VmKey
from vmfabric.ipam.domain.leasing import Changes, Holding
from vmfabric.ipam.domain.stock import InUse
from vmfabric.ipam.ports import Content
from vmfabric.ipam.statements import commit_statement

_LEASES = """
SELECT lease.cluster, lease.vm, lease.node, lease.generation, lease.state, lease.since,
       allocation.address, allocation.pool
FROM unnest($1::text[], $2::text[]) AS wanted (cluster, vm)
JOIN lease USING (cluster, vm)
LEFT JOIN allocation ON (allocation.cluster, allocation.vm, allocation.generation)
                      = (lease.cluster, lease.vm, lease.generation)
ORDER BY allocation.position
"""


class PostgresStore:
    """The one writer's store. It remembers which VMs have a lease, so that a new VM costs no read."""

    def __init__(self, pool: asyncpg.Pool, relay: Relay) -> None:
        self._pool = pool
        self._relay = relay
        self._known: dict[ClusterName, set[VmName]] = {}

    async def load(self) -> Content:
        """Everything that the stock is built from, as of one moment."""
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            networks = await connection.fetch("SELECT name, prefix, note FROM network")
            pools = await connection.fetch(
                "SELECT name, cluster, quarantine_seconds,"
                " ARRAY(SELECT prefix FROM block WHERE pool = name ORDER BY position) AS blocks,"
                " ARRAY(SELECT prefix FROM exclusion WHERE pool = name ORDER BY position) AS exclude FROM pool"
            )
            in_use = await connection.fetch("SELECT address, pool, rests_until FROM allocation")
            leases = await connection.fetch("SELECT cluster, array_agg(vm) AS vms FROM lease GROUP BY cluster")
        self._known = {row["cluster"]: set(row["vms"]) for row in leases}
        return Content(
            networks=[NetworkSpec(**row) for row in networks],
            pools=[
                PoolSpec(**{**row, "blocks": tuple(row["blocks"]), "exclude": tuple(row["exclude"])}) for row in pools
            ],
            in_use=[InUse(*row) for row in in_use],
        )

    async def leases(self, keys: Collection[VmKey]) -> Mapping[VmKey, Lease]:
        """The leases of those VMs that have one."""
        known = [key for key in keys if key.vm in self._known.get(key.cluster, ())]
        if not known:
            return {}
        rows = await self._pool.fetch(_LEASES, [key.cluster for key in known], [key.vm for key in known])
        found: dict[VmKey, Lease] = {}
        for row in rows:
            key = VmKey(row["cluster"], row["vm"])
            earlier = found[key].addresses if key in found else ()
            addresses = (*earlier, *_allocated(row))
            found[key] = Lease(key, row["node"], row["generation"], State(row["state"]), row["since"], addresses)
        return found

    async def holdings(self, addresses: Collection[HostAddress]) -> Sequence[Holding]:
        """Who holds or held these addresses."""
        rows = await self._pool.fetch("SELECT * FROM allocation WHERE address = ANY ($1::inet[])", list(addresses))
        return [
            Holding(
                row["address"],
                row["pool"],
                VmKey(row["cluster"], row["vm"]),
                row["node"],
                row["generation"],
                row["position"],
                row["since"],
                row["rests_until"],
            )
            for row in rows
        ]

    async def in_use(self, pool: ResourceName) -> Sequence[InUse]:
        """Every address of the pool that is held or rests."""
        rows = await self._pool.fetch("SELECT address, pool, rests_until FROM allocation WHERE pool = $1", pool)
        return [InUse(*row) for row in rows]

    async def commit(self, changes: Changes, messages: Sequence[Outgoing]) -> None:
        """Write leases, holdings, history and messages. UniqueViolationError when somebody else has written too."""
        if changes.is_empty() and not messages:
            return
        # Before the outcome is known: a VM here that has no lease costs a read, one that is missing a second lease.
        for lease in changes.new_leases:
            self._known.setdefault(lease.key.cluster, set()).add(lease.key.vm)
        statement, arguments = commit_statement(changes, messages)
        stored = await self._pool.fetch(statement, *arguments)
        self._relay.offer([Stored(row["id"], message) for row, message in zip(stored, messages, strict=True)])

    async def put_network(self, spec: NetworkSpec, messages: Sequence[Outgoing]) -> None:
        """Write a network. ExclusionViolationError when it overlaps another."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO network (name, prefix, note) VALUES ($1, $2, $3)"
                " ON CONFLICT (name) DO UPDATE SET prefix = EXCLUDED.prefix, note = EXCLUDED.note",
                *(spec.name, spec.prefix, spec.note),
            )
            await add(connection, messages)
        self._relay.wake()

    async def put_pool(self, spec: PoolSpec, messages: Sequence[Outgoing]) -> None:
        """Write a pool. ExclusionViolationError when a block overlaps that of another pool."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO pool (name, cluster, quarantine_seconds) VALUES ($1, $2, $3) ON CONFLICT (name)"
                " DO UPDATE SET cluster = EXCLUDED.cluster, quarantine_seconds = EXCLUDED.quarantine_seconds",
                *(spec.name, spec.cluster, spec.quarantine_seconds),
            )
            await _put_prefixes(connection, "block", spec.name, spec.blocks)
            await _put_prefixes(connection, "exclusion", spec.name, spec.exclude)
            await add(connection, messages)
        self._relay.wake()

    async def forget(self, *, fences_before: datetime, history_before: datetime) -> None:
        """Remove released leases and history that are older."""
        rows = await self._pool.fetch(
            "DELETE FROM lease WHERE state = 'released' AND since < $1 RETURNING cluster, vm", fences_before
        )
        for row in rows:
            self._known.get(row["cluster"], set()).discard(row["vm"])
        await self._pool.execute("DELETE FROM history WHERE at < $1", history_before)


async def _put_prefixes(
    connection: asyncpg.pool.PoolConnectionProxy, table: str, pool: ResourceName, prefixes: Sequence[Prefix]
) -> None:
    await connection.execute(f"DELETE FROM {table} WHERE pool = $1", pool)  # noqa: S608  # a word of ours
    await connection.execute(
        f"INSERT INTO {table} (pool, prefix, position)"  # noqa: S608
        " SELECT $1, prefix, position FROM unnest($2::cidr[]) WITH ORDINALITY AS given (prefix, position)",
        *(pool, list(prefixes)),
    )


def _allocated(row: asyncpg.Record) -> tuple[AllocatedAddress, ...]:
    return () if row["address"] is None else (AllocatedAddress(address=row["address"], pool=row["pool"]),)
