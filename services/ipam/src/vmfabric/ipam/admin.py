"""Which request goes to which function."""

from typing import Any

from vmfabric.contract.addresses import Family, HostAddress, parse_host
from vmfabric.contract.addressing import FreeAddresses, FreeInPool, ListFree, ReleaseAddresses, ReserveAddresses
from vmfabric.contract.admin import (
    Addresses,
    ApplyNetwork,
    ApplyPool,
    ExplainAddress,
    Explanation,
    List,
    ListOfCluster,
    Networks,
    Pools,
    PoolUsage,
    Usage,
)
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.names import NodeName
from vmfabric.ipam.applying import Applying
from vmfabric.ipam.domain.history import verdict
from vmfabric.ipam.domain.pool_stock import PoolStock
from vmfabric.ipam.domain.pools import place
from vmfabric.ipam.domain.stock import Stock
from vmfabric.ipam.ports import Records
from vmfabric.ipam.reserving import Reserving
from vmfabric.ipam.writer import Writer
from vmfabric.runtime.micro import Endpoint

_HISTORY = 100


class Administration:
    """Answers operators."""

    def __init__(self, writer: Writer, applying: Applying, reserving: Reserving, records: Records) -> None:
        self._writer = writer
        self._applying = applying
        self._reserving = reserving
        self._records = records

    def endpoints(self) -> tuple[Endpoint[Any], ...]:
        """The page of this service."""
        return (
            Endpoint("network.apply", ApplyNetwork, self._applying.apply_network, "make a network so"),
            Endpoint("network.list", List, self.list_networks, "all networks"),
            Endpoint("pool.apply", ApplyPool, self._applying.apply_pool, "make a pool so"),
            Endpoint("pool.list", ListOfCluster, self.list_pools, "pools and how full they are"),
            Endpoint("pool.free", ListFree, self.list_free, "where a VM can still have an address"),
            Endpoint("ip.list", ListOfCluster, self.list_addresses, "addresses that are held, rest, or are reserved"),
            Endpoint("ip.reserve", ReserveAddresses, self._reserving.reserve, "keep addresses for somebody"),
            Endpoint("ip.release", ReleaseAddresses, self._reserving.release, "keep addresses for nobody any more"),
            Endpoint("ip.explain", ExplainAddress, self.explain, "what is known of an address"),
        )

    async def list_networks(self, _request: List) -> Networks:
        """All networks, in the order of their names."""
        stock = await self._stock()
        return Networks(networks=tuple(stock.networks[name] for name in sorted(stock.networks)))

    async def list_pools(self, request: ListOfCluster) -> Pools:
        """Pools and how full they are, in the order of their names."""
        wanted = [
            pool
            for pool in await self._stock()
            if request.cluster in {None, pool.spec.cluster} and pool.spec.name > request.after
        ]
        return Pools(pools=tuple(_usage(pool) for pool in wanted[: request.limit]))

    async def list_free(self, request: ListFree) -> FreeAddresses:
        """What the pools of a cluster, and of its nodes, can give now; none when the cluster has no pool."""
        pools = [pool for pool in await self._stock() if pool.spec.cluster == request.cluster]
        return FreeAddresses(cluster=request.cluster, pools=tuple(_free(pool) for pool in pools))

    async def list_addresses(self, request: ListOfCluster) -> Addresses:
        """Addresses that are held, rest or are reserved, in order."""
        after = _address(request.after) if request.after else None
        found = await self._records.records(request.cluster, after, request.limit + 1)
        page = tuple(found[: request.limit])
        return Addresses(addresses=page, next=str(page[-1].address) if len(found) > len(page) else None)

    async def explain(self, request: ExplainAddress) -> Explanation:
        """What is known of an address, from the network it lies in to who had it."""
        stock = await self._stock()
        found = place(request.address, stock.networks, stock.pools, stock.gateways)
        record = await self._records.record(request.address)
        return Explanation(
            address=request.address,
            verdict=verdict(request.address, found, record),
            network=found.network.name if found.network else None,
            pool=found.pool.name if found.pool else None,
            record=record,
            history=tuple(await self._records.history(request.address, _HISTORY)),
        )

    async def _stock(self) -> Stock:
        return await self._writer.alone(_itself)


async def _itself(stock: Stock) -> Stock:
    return stock


def _usage(pool: PoolStock) -> PoolUsage:
    return PoolUsage(
        spec=pool.spec,
        usage={family: _usage_of(pool, family) for family in pool.families},
    )


def _usage_of(pool: PoolStock, family: Family) -> Usage:
    total, free, resting, reserved = (
        *(pool.total(family), pool.free(family)),
        *(pool.resting(family), pool.reserved(family)),
    )
    allocated = total - free - resting - reserved
    return Usage(total=total, allocated=allocated, quarantined=resting, reserved=reserved, free=free)


def _free(pool: PoolStock) -> FreeInPool:
    nodes: dict[NodeName, dict[Family, int]] = {node: {} for node in pool.spec.ranges}
    for family in pool.families:
        for node, share in pool.of_family(family):
            if node is not None:
                nodes[node][family] = share.allocator.free
    return FreeInPool(
        pool=pool.spec.name,
        free={family: pool.free(family) for family in pool.families},
        nodes=nodes if pool.spec.ranges else None,
    )


def _address(text: str) -> HostAddress:
    try:
        return parse_host(text)
    except ValueError as error:
        raise Refused(
            Code.INVALID_REQUEST, f"after is {text!r}, which is not an address; give the `next` of the last page"
        ) from error
