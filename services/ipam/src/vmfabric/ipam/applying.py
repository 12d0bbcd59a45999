"""Networks and pools as operators apply them."""

from vmfabric.contract.addresses import lies_inside
from vmfabric.contract.admin import Applied, ApplyNetwork, ApplyPool, Change
from vmfabric.contract.pool import NetworkSpec, PoolSpec
from vmfabric.ipam.domain.keeping import check_blocks_kept, check_kept
from vmfabric.ipam.domain.networks import ActiveNetworks, check_network
from vmfabric.ipam.domain.pools import changed_fields, check_delegation, check_pool, desired_pools
from vmfabric.ipam.domain.stock import Stock
from vmfabric.ipam.ports import Store
from vmfabric.ipam.writer import Writer
from vmfabric.runtime.desired import put


class Applying:
    """Changes networks and pools while no address is given."""

    def __init__(self, writer: Writer, store: Store) -> None:
        self._writer = writer
        self._store = store

    async def apply_network(self, request: ApplyNetwork) -> Applied:
        """Make the network so; Refused when it overlaps another, or leaves a block of a pool outside."""
        return await self._writer.alone(lambda stock: self._apply_network(stock, request.spec, request.dry_run))

    async def apply_pool(self, request: ApplyPool) -> Applied:
        """Make the pool so; Refused when a block cannot be the pool's, or an address in use would be left outside."""
        return await self._writer.alone(lambda stock: self._apply_pool(stock, request.spec, request.dry_run))

    async def _apply_network(self, stock: Stock, spec: NetworkSpec, dry_run: bool) -> Applied:
        old = stock.networks.get(spec.name)
        applied = _compare("network", old, spec, dry_run=dry_run)
        check_network(spec, stock.networks)
        if applied.change is Change.UNCHANGED:
            return applied
        if old is not None:
            check_blocks_kept(old, spec, stock.pools)
        withheld = ActiveNetworks({**stock.networks, spec.name: spec}.values()).withheld
        pools = [pool for pool in stock.pools.values() if any(lies_inside(it, spec.prefix) for it in pool.blocks)]
        in_use = {pool.name: await self._store.in_use(pool.name) for pool in pools}
        for pool in pools:
            check_delegation(pool, [spec])
            reserved = stock.reservations.of_pool(pool.name)
            check_kept(f"network {spec.name}", pool, pool, withheld, in_use[pool.name], reservations=reserved)
        if not dry_run:
            await self._store.put_network(spec, [])
            stock.set_network(spec)
            for pool in pools:
                stock.set_pool(pool, in_use[pool.name])
        return applied

    async def _apply_pool(self, stock: Stock, spec: PoolSpec, dry_run: bool) -> Applied:
        old = stock.pools.get(spec.name)
        applied = _compare("pool", old, spec, dry_run=dry_run)
        check_pool(spec, stock.networks, stock.pools)
        if applied.change is Change.UNCHANGED:
            return applied
        in_use = await self._store.in_use(spec.name)
        if old is not None:
            reserved = stock.reservations.of_pool(spec.name)
            check_kept(f"pool {spec.name}", old, spec, stock.withheld, in_use, reservations=reserved)
        if not dry_run:
            pools = {**stock.pools, spec.name: spec}
            clusters = {spec.cluster, old.cluster if old is not None else spec.cluster}
            await self._store.put_pool(spec, [put(desired_pools(cluster, pools)) for cluster in sorted(clusters)])
            stock.set_pool(spec, in_use)
        return applied


def _compare(kind: str, old: NetworkSpec | PoolSpec | None, new: NetworkSpec | PoolSpec, *, dry_run: bool) -> Applied:
    if old is None:
        return Applied(kind=kind, name=new.name, change=Change.CREATED, dry_run=dry_run)
    fields = changed_fields(old, new)
    change = Change.CHANGED if fields else Change.UNCHANGED
    return Applied(kind=kind, name=new.name, change=change, dry_run=dry_run, fields=fields)
