"""The store in Postgres."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import asyncpg

from vmfabric.contract.addresses import HostAddress, Prefix
from vmfabric.contract.addressing import Reservation
from vmfabric.contract.envelope import Outgoing
from vmfabric.contract.errors import Code
from vmfabric.contract.names import ClusterName, NodeName, ResourceName, VmName
from vmfabric.contract.pool import AddressRange, NetworkKind, NetworkSpec, PoolSpec
from vmfabric.database.outbox import Relay, Stored, add
from vmfabric.database.pool import Connection
from vmfabric.ipam.domain.changes import Changes, Holding
from vmfabric.ipam.domain.history import BEGINS, ENDS
from vmfabric.ipam.domain.keeping import InUse
from vmfabric.ipam.domain.lease import Given, Lease, Refusal, State, VmKey
from vmfabric.ipam.ports import Content
from vmfabric.ipam.statements import commit_statement

_LEASES = """
SELECT lease.cluster, lease.vm, lease.node, lease.generation, lease.state, lease.since,
       lease.refused_code, lease.refused_because, allocation.address, allocation.pool
FROM unnest($1::text[], $2::text[]) AS wanted (cluster, vm)
JOIN lease USING (cluster, vm)
LEFT JOIN allocation ON (allocation.cluster, allocation.vm, allocation.generation)
                      = (lease.cluster, lease.vm, lease.generation)
ORDER BY allocation.position
"""
_FORGOTTEN = """
DELETE FROM history AS old
WHERE old.at < $1 AND (old.what <> ALL ($2::text[]) OR EXISTS (
    SELECT FROM history AS later
    WHERE later.address = old.address AND later.id > old.id AND later.at < $1 AND later.what = ANY ($3::text[])
      AND (later.owner IS NULL) = (old.owner IS NULL)
))
"""
_IN_USE = "SELECT address, pool, vm, node, rests_until FROM allocation"


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
            networks = await connection.fetch("SELECT name, prefix, kind, gateway, vlan, segment, note FROM network")
            pools = await connection.fetch(
                "SELECT name, cluster, quarantine_seconds, ipv6_length,"
                " ARRAY(SELECT prefix FROM block WHERE pool = name ORDER BY position) AS blocks,"
                " ARRAY(SELECT prefix FROM exclusion WHERE pool = name ORDER BY position) AS exclude FROM pool"
            )
            ranges = await connection.fetch("SELECT pool, node, first, last FROM node_range ORDER BY node, position")
            in_use = await connection.fetch(_IN_USE)
            reservations = await connection.fetch("SELECT * FROM reservation")
            leases = await connection.fetch("SELECT cluster, array_agg(vm) AS vms FROM lease GROUP BY cluster")
        self._known = {row["cluster"]: set(row["vms"]) for row in leases}
        return Content(
            networks=[NetworkSpec(**{**row, "kind": NetworkKind(row["kind"])}) for row in networks],
            pools=[_pool(row, [each for each in ranges if each["pool"] == row["name"]]) for row in pools],
            in_use=[InUse(*row) for row in in_use],
            reservations=[Reservation(**row) for row in reservations],
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
            addresses = (*earlier, *_given(row))
            found[key] = Lease(
                key, row["node"], row["generation"], State(row["state"]), row["since"], addresses, _refusal(row)
            )
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
                row["prefix"],
            )
            for row in rows
        ]

    async def in_use(self, pool: ResourceName) -> Sequence[InUse]:
        """Every address of the pool that is held or rests."""
        rows = await self._pool.fetch(f"{_IN_USE} WHERE pool = $1", pool)
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
                "INSERT INTO network (name, prefix, kind, gateway, vlan, segment, note)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7)"
                " ON CONFLICT (name) DO UPDATE SET prefix = EXCLUDED.prefix, kind = EXCLUDED.kind,"
                " gateway = EXCLUDED.gateway, vlan = EXCLUDED.vlan, segment = EXCLUDED.segment, note = EXCLUDED.note",
                *(spec.name, spec.prefix, spec.kind, spec.gateway, spec.vlan, spec.segment, spec.note),
            )
            await add(connection, messages)
        self._relay.wake()

    async def put_pool(self, spec: PoolSpec, messages: Sequence[Outgoing]) -> None:
        """Write a pool. ExclusionViolationError when a block overlaps that of another pool."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO pool (name, cluster, quarantine_seconds, ipv6_length) VALUES ($1, $2, $3, $4)"
                " ON CONFLICT (name) DO UPDATE SET cluster = EXCLUDED.cluster,"
                " quarantine_seconds = EXCLUDED.quarantine_seconds, ipv6_length = EXCLUDED.ipv6_length",
                *(spec.name, spec.cluster, spec.quarantine_seconds, spec.ipv6_length),
            )
            await _put_prefixes(connection, "block", spec.name, spec.blocks)
            await _put_prefixes(connection, "exclusion", spec.name, spec.exclude)
            await _put_ranges(connection, spec)
            await add(connection, messages)
        self._relay.wake()

    async def delete_network(self, name: ResourceName) -> None:
        """Remove a network."""
        await self._pool.execute("DELETE FROM network WHERE name = $1", name)

    async def delete_pool(self, name: ResourceName, messages: Sequence[Outgoing]) -> None:
        """Remove a pool. ForeignKeyViolationError when an address of it is there still."""
        async with self._pool.acquire() as connection, connection.transaction():
            for table in ("block", "exclusion", "node_range"):
                await connection.execute(f"DELETE FROM {table} WHERE pool = $1", name)  # noqa: S608  # a word of ours
            await connection.execute("DELETE FROM pool WHERE name = $1", name)
            await add(connection, messages)
        self._relay.wake()

    async def forget(self, *, fences_before: datetime, history_before: datetime) -> None:
        """Remove released leases that are older, and history but for the beginning of what goes on."""
        rows = await self._pool.fetch(
            "DELETE FROM lease WHERE state = 'released' AND since < $1 RETURNING cluster, vm", fences_before
        )
        for row in rows:
            self._known.get(row["cluster"], set()).discard(row["vm"])
        await self._pool.execute(_FORGOTTEN, history_before, list(BEGINS), list(ENDS))


async def _put_prefixes(connection: Connection, table: str, pool: ResourceName, prefixes: Sequence[Prefix]) -> None:
    await connection.execute(f"DELETE FROM {table} WHERE pool = $1", pool)  # noqa: S608  # a word of ours
    await connection.execute(
        f"INSERT INTO {table} (pool, prefix, position)"  # noqa: S608
        " SELECT $1, prefix, position FROM unnest($2::cidr[]) WITH ORDINALITY AS given (prefix, position)",
        *(pool, list(prefixes)),
    )


async def _put_ranges(connection: Connection, spec: PoolSpec) -> None:
    await connection.execute("DELETE FROM node_range WHERE pool = $1", spec.name)
    await connection.executemany(
        "INSERT INTO node_range (pool, node, position, first, last) VALUES ($1, $2, $3, $4, $5)",
        [
            (spec.name, node, position, each.first, each.last)
            for node, ranges in spec.ranges.items()
            for position, each in enumerate(ranges)
        ],
    )


def _pool(row: asyncpg.Record, rows_of_ranges: Sequence[asyncpg.Record]) -> PoolSpec:
    ranges: dict[NodeName, tuple[AddressRange, ...]] = {}
    for each in rows_of_ranges:
        ranges[each["node"]] = (*ranges.get(each["node"], ()), AddressRange(first=each["first"], last=each["last"]))
    return PoolSpec(
        **{**row, "blocks": tuple(row["blocks"]), "exclude": tuple(row["exclude"]), "ranges": ranges},
    )


def _refusal(row: asyncpg.Record) -> Refusal | None:
    code = row["refused_code"]
    return None if code is None else Refusal(Code(code), row["refused_because"])


def _given(row: asyncpg.Record) -> tuple[Given, ...]:
    return () if row["address"] is None else (Given(row["address"], row["pool"]),)
