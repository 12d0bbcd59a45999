"""How full pools are, and who had an address when."""

from datetime import timedelta

from vmfabric.contract.addresses import Family
from vmfabric.contract.addressing import (
    AddressHistory,
    AskHistory,
    AskUsage,
    FreeAddresses,
    FreeInPool,
    ListFree,
    UsageOfPool,
    UsageReport,
)
from vmfabric.contract.admin import ListOfCluster, Pools, PoolUsage, Usage
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.names import ClusterName, NodeName
from vmfabric.ipam.domain import tenures, usage
from vmfabric.ipam.domain.pool_stock import PoolStock
from vmfabric.ipam.domain.stock import Stock
from vmfabric.ipam.named import check_cluster
from vmfabric.ipam.ports import Records
from vmfabric.ipam.writer import Writer
from vmfabric.runtime.clock import Clock

_BETWEEN = 1000
_CLOCKS = timedelta(minutes=1)
"""So much may the clock of who asks be ahead."""
_AROUND = 100
"""So many beginnings and ends before a moment are read of VMs and of reservations each, and as many after it."""


class Reporting:
    """Reads only."""

    def __init__(self, writer: Writer, records: Records, clock: Clock) -> None:
        self._writer = writer
        self._records = records
        self._clock = clock

    async def list_pools(self, request: ListOfCluster) -> Pools:
        """Pools and how full they are, in the order of their names."""
        stock = await self._writer.current()
        check_cluster(request.cluster, stock)
        wanted = [
            pool for pool in stock if request.cluster in {None, pool.spec.cluster} and pool.spec.name > request.after
        ]
        return Pools(pools=tuple(_usage(pool) for pool in wanted[: request.limit]))

    async def list_free(self, request: ListFree) -> FreeAddresses:
        """What the pools of a cluster, and of its nodes, can give now; none when the cluster has no pool."""
        return free_addresses(await self._writer.current(), request.cluster)

    async def report_usage(self, request: AskUsage) -> UsageReport:
        """How full pools are, and when they run out if it goes on as in the last day or week."""
        now = self._clock.now()
        last_day = await self._records.net_allocated(now - usage.DAY)
        last_week = await self._records.net_allocated(now - usage.WEEK)
        stock = await self._writer.current()
        check_cluster(request.cluster, stock)
        if request.pool is not None and stock.pool(request.pool) is None:
            raise Refused(Code.UNKNOWN_POOL, f"there is no pool {request.pool}; pool.list says which there are")
        pools = [
            pool
            for pool in stock
            if request.cluster in {None, pool.spec.cluster} and request.pool in {None, pool.spec.name}
        ]
        return UsageReport(
            pools=tuple(
                UsageOfPool(
                    pool=pool.spec.name,
                    cluster=pool.spec.cluster,
                    families={
                        family: usage.usage(pool, family, last_day, last_week, now) for family in pool.families
                    },
                )
                for pool in pools
            )
        )

    async def tell_history(self, request: AskHistory) -> AddressHistory:
        """Who had an address at a moment, and around it."""
        now = self._clock.now()
        if request.at is not None and request.at - now >= _CLOCKS:
            raise Refused(Code.INVALID_REQUEST, f"nobody knows who will have {request.address} at {request.at}")
        at = min(request.at or now, now)
        named = (await self._writer.current()).named(request.address)
        # In this order: what has begun or ended since the record was read is in the history.
        record = await self._records.record(named)
        limit = _AROUND if request.until is None else _BETWEEN
        entries = await self._records.tenures_around(request.address, at, limit)
        if request.until is None:
            return tenures.told(request.address, entries, record, at)
        known_until = tenures.known_until(entries, at, limit)
        return tenures.told_between(request.address, entries, record, (at, min(request.until, now)), known_until)


def free_addresses(stock: Stock, cluster: ClusterName) -> FreeAddresses:
    """What the pools of a cluster can give, in the order in which they are asked."""
    return FreeAddresses(cluster=cluster, pools=tuple(_free(pool) for pool in stock if pool.spec.cluster == cluster))


def _usage(pool: PoolStock) -> PoolUsage:
    return PoolUsage(spec=pool.spec, usage={family: _usage_of(pool, family) for family in pool.families})


def _usage_of(pool: PoolStock, family: Family) -> Usage:
    return Usage(
        total=pool.total(family),
        allocated=pool.held(family),
        quarantined=pool.resting(family),
        reserved=pool.reserved(family),
        free=pool.free(family),
    )


def _free(pool: PoolStock) -> FreeInPool:
    nodes: dict[NodeName, dict[Family, int]] = {node: {} for node in pool.spec.ranges}
    for family in pool.families:
        for node, share in pool.of_family(family):
            if node is not None:
                nodes[node][family] = share.allocator.free
    return FreeInPool(
        pool=pool.spec.name,
        free={family: pool.free(family) for family in pool.families},
        ipv6_length=pool.spec.ipv6_length,
        nodes=nodes if pool.spec.ranges else None,
    )
