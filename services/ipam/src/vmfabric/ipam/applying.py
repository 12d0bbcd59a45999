"""Networks and pools as operators apply them."""

from vmfabric.contract.addresses import lies_inside
from vmfabric.contract.admin import Applied, ApplyNetwork, ApplyPool, Change, DeleteNetwork, DeletePool
from vmfabric.contract.pool import NetworkSpec, PoolSpec
from vmfabric.ipam.domain.keeping import check_blocks_kept, check_kept, check_uncut, check_unused
from vmfabric.ipam.domain.networks import ActiveNetworks, check_network
from vmfabric.ipam.domain.pools import changed_fields, check_delegation, check_pool, desired_pools
from vmfabric.ipam.domain.special import check_usable
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

    async def delete_pool(self, request: DeletePool) -> Applied:
        """Forget the pool; Refused when an address of it is in use. One that is not there is deleted already."""
        return await self._writer.alone(lambda stock: self._delete_pool(stock, request))

    async def delete_network(self, request: DeleteNetwork) -> Applied:
        """Forget the network; Refused when a block is cut from it. One that is not there is deleted already."""
        return await self._writer.alone(lambda stock: self._delete_network(stock, request))

    async def _delete_pool(self, stock: Stock, request: DeletePool) -> Applied:
        pool = stock.pools.get(request.name)
        if pool is not None:
            check_unused(pool, await self._store.in_use(pool.name), stock.reservations.of_pool(pool.name))
            if not request.dry_run:
                left = {name: spec for name, spec in stock.pools.items() if name != pool.name}
                await self._store.delete_pool(pool.name, [put(desired_pools(pool.cluster, left))])
                stock.drop_pool(pool.name)
        return _deleted("pool", request, pool)

    async def _delete_network(self, stock: Stock, request: DeleteNetwork) -> Applied:
        network = stock.networks.get(request.name)
        if network is not None:
            check_uncut(network, stock.pools)
            if not request.dry_run:
                await self._store.delete_network(network.name)
                stock.drop_network(network.name)
        return _deleted("network", request, network)

    async def _apply_network(self, stock: Stock, spec: NetworkSpec, dry_run: bool) -> Applied:
        old = stock.networks.get(spec.name)
        applied = _compare("network", old, spec, dry_run=dry_run)
        check_usable(spec)
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


def _deleted(kind: str, request: DeletePool | DeleteNetwork, old: NetworkSpec | PoolSpec | None) -> Applied:
    change = Change.UNCHANGED if old is None else Change.DELETED
    return Applied(kind=kind, name=request.name, change=change, dry_run=request.dry_run)


def _compare(kind: str, old: NetworkSpec | PoolSpec | None, new: NetworkSpec | PoolSpec, *, dry_run: bool) -> Applied:
    if old is None:
        return Applied(kind=kind, name=new.name, change=Change.CREATED, dry_run=dry_run)
    fields = changed_fields(old, new)
    change = Change.CHANGED if fields else Change.UNCHANGED
    return Applied(kind=kind, name=new.name, change=change, dry_run=dry_run, fields=fields)
