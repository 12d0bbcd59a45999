"""What operators ask of Postgres: who holds an address, and who did."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from vmfabric.contract.addresses import Family, HostAddress
from vmfabric.contract.addressing import Reservation
from vmfabric.contract.admin import AddressRecord, HistoryEntry
from vmfabric.contract.names import ClusterName
from vmfabric.ipam.domain.history import BEGINS, ENDS
from vmfabric.ipam.domain.usage import Flow, NetAllocated

_RESERVATION = """
    reservation.pool AS reserved_pool, reservation.cluster AS reserved_cluster, reservation.owner, reservation.note,
    reservation.since AS reserved_since, reservation.expires_at, reservation.for_vm, reservation.node AS reserved_node
"""
_HELD = f"""
SELECT allocation.address, allocation.pool, allocation.cluster, allocation.vm, allocation.node,
       allocation.generation, allocation.since, allocation.rests_until AS free_at, allocation.prefix,
       CASE WHEN allocation.rests_until IS NOT NULL THEN 'quarantined'
            WHEN lease.state = 'releasing' THEN 'releasing'
            ELSE 'allocated' END AS state, {_RESERVATION}
FROM allocation
LEFT JOIN lease ON (lease.cluster, lease.vm) = (allocation.cluster, allocation.vm)
LEFT JOIN reservation ON reservation.address = allocation.address
"""  # noqa: S608  # words of ours
_ONLY_RESERVED = f"""
SELECT reservation.address, reservation.pool, reservation.cluster, NULL, NULL, NULL, reservation.since,
       reservation.expires_at, NULL::cidr, 'reserved', {_RESERVATION}
FROM reservation
WHERE NOT EXISTS (SELECT FROM allocation WHERE allocation.address = reservation.address)
"""  # noqa: S608
_PAGE = """
    ({table}.cluster = $1 OR $1::text IS NULL) AND ({table}.address > $2 OR $2::inet IS NULL)
    ORDER BY {table}.address LIMIT $3
"""

_ENTRY = "at, what, cluster, vm, node, generation, owner, note, prefix"
_OF_ADDRESS = "(address = $1 OR prefix >>= $1)"
_HISTORY = f"SELECT {_ENTRY} FROM history WHERE {_OF_ADDRESS}"  # noqa: S608
_TENURES = " UNION ALL ".join(
    f"(SELECT * FROM history WHERE {_OF_ADDRESS} AND what = ANY ($4::text[]) AND (owner IS NULL) = {of_vms}"  # noqa: S608
    f" AND at {side} $2 ORDER BY id {order} LIMIT $3)"
    for of_vms in ("true", "false")
    for side, order in (("<=", "DESC"), (">", "ASC"))
)
_NET_ALLOCATED = """
SELECT block.pool, family(block.prefix) AS version, sum(flow.net)::bigint AS net,
       CASE WHEN bool_or(EXISTS (
           SELECT FROM history WHERE at <= $1
           AND address BETWEEN host(network(block.prefix))::inet AND host(broadcast(block.prefix))::inet
       )) THEN $1 ELSE min(flow.first) END AS since
FROM block CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE what = 'allocated') - count(*) FILTER (WHERE what = 'released') AS net,
           min(at) AS first
    FROM history WHERE at > $1 AND address <<= block.prefix
) AS flow
GROUP BY block.pool, version
"""


class PostgresRecords:
    """Reads only."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def records(
        self, cluster: ClusterName | None, after: HostAddress | None, limit: int
    ) -> Sequence[AddressRecord]:
        """Addresses that are held, rest or are reserved, ascending, IPv4 first."""
        held = f"{_HELD} WHERE {_PAGE.format(table='allocation')}"
        reserved = f"{_ONLY_RESERVED} AND {_PAGE.format(table='reservation')}"
        rows = await self._pool.fetch(
            f"({held}) UNION ALL ({reserved}) ORDER BY address LIMIT $3", *(cluster, after, limit)
        )
        return [_record(row) for row in rows]

    async def record(self, address: HostAddress) -> AddressRecord | None:
        """Who holds this address, or held it while it rests, and for whom it is reserved."""
        row = await self._pool.fetchrow(
            f"{_HELD} WHERE allocation.address = $1 UNION ALL {_ONLY_RESERVED} AND reservation.address = $1", address
        )
        return None if row is None else _record(row)

    async def history(self, address: HostAddress, limit: int) -> Sequence[HistoryEntry]:
        """What happened to this address, newest first."""
        rows = await self._pool.fetch(f"{_HISTORY} ORDER BY id DESC LIMIT $2", address, limit)
        return [HistoryEntry(**row) for row in rows]

    async def tenures_around(self, address: HostAddress, at: datetime, limit: int) -> Sequence[HistoryEntry]:
        """Where VMs and reservations began and ended to have this address, oldest first."""
        rows = await self._pool.fetch(
            f"SELECT {_ENTRY} FROM ({_TENURES}) AS found ORDER BY id",  # noqa: S608
            *(address, at, limit, list(BEGINS | ENDS)),
        )
        return [HistoryEntry(**row) for row in rows]

    async def net_allocated(self, since: datetime) -> NetAllocated:
        """What VMs took since then of what each pool has now, of pools that anything was ever heard of."""
        rows = await self._pool.fetch(_NET_ALLOCATED, since)
        return {
            (row["pool"], Family.IPV4 if row["version"] == 4 else Family.IPV6): Flow(row["net"], row["since"])
            for row in rows
            if row["since"] is not None
        }


def _record(row: asyncpg.Record) -> AddressRecord:
    own = {name: row[name] for name in ("address", "pool", "cluster", "vm", "node", "generation", "state", "since")}
    return AddressRecord(
        **own,
        prefix=row["prefix"],
        free_at=row["free_at"],
        reservation=_reservation(row) if row["owner"] else None,
    )


def _reservation(row: asyncpg.Record) -> Reservation:
    return Reservation(
        address=row["address"],
        pool=row["reserved_pool"],
        cluster=row["reserved_cluster"],
        owner=row["owner"],
        note=row["note"],
        since=row["reserved_since"],
        expires_at=row["expires_at"],
        for_vm=row["for_vm"],
        node=row["reserved_node"],
    )
