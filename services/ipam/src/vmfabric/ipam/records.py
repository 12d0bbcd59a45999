"""What operators ask of Postgres: who holds an address, and who did."""

from collections.abc import Sequence

import asyncpg

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.admin import AddressRecord, HistoryEntry
from vmfabric.contract.names import ClusterName

_RECORDS = """
SELECT allocation.address, allocation.pool, allocation.cluster, allocation.vm, allocation.node,
       allocation.generation, allocation.since, allocation.rests_until AS free_at,
       CASE WHEN allocation.rests_until IS NOT NULL THEN 'quarantined'
            WHEN lease.state = 'releasing' THEN 'releasing'
            ELSE 'allocated' END AS state
FROM allocation LEFT JOIN lease USING (cluster, vm)
"""


class PostgresRecords:
    """Reads only."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def records(
        self, cluster: ClusterName | None, after: HostAddress | None, limit: int
    ) -> Sequence[AddressRecord]:
        """Addresses that are held or rest, ascending, IPv4 first."""
        rows = await self._pool.fetch(
            f"{_RECORDS} WHERE ($1::text IS NULL OR allocation.cluster = $1)"
            " AND ($2::inet IS NULL OR allocation.address > $2) ORDER BY allocation.address LIMIT $3",
            *(cluster, after, limit),
        )
        return [AddressRecord(**row) for row in rows]

    async def record(self, address: HostAddress) -> AddressRecord | None:
        """Who holds this address, or held it while it rests."""
        row = await self._pool.fetchrow(f"{_RECORDS} WHERE allocation.address = $1", address)
        return None if row is None else AddressRecord(**row)

    async def history(self, address: HostAddress, limit: int) -> Sequence[HistoryEntry]:
        """What happened to this address, newest first."""
        rows = await self._pool.fetch(
            "SELECT at, what, cluster, vm, node, generation FROM history"
            " WHERE address = $1 ORDER BY id DESC LIMIT $2",
            *(address, limit),
        )
        return [HistoryEntry(**row) for row in rows]
