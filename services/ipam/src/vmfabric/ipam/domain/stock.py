"""What the pools of all clusters have to give, and giving it."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from vmfabric.contract.addresses import Family, HostAddress
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.ip import AllocatedAddress, IpExhausted
from vmfabric.contract.names import ClusterName, NodeName, ResourceName
from vmfabric.contract.pool import NetworkSpec, PoolSpec
from vmfabric.contract.vm import AddressWish
from vmfabric.ipam.domain.keeping import InUse
from vmfabric.ipam.domain.lease import Given, VmKey
from vmfabric.ipam.domain.networks import ActiveNetworks
from vmfabric.ipam.domain.pool_stock import PoolStock, ShareStock
from vmfabric.ipam.domain.pools import address_of, hindrance, node_of
from vmfabric.ipam.domain.quarantine import Quarantine


class ExhaustedError(Refused):
    """No pool that would do has a free address."""

    def __init__(self, sentence: str, full: tuple[IpExhausted, ...]) -> None:
        super().__init__(Code.POOL_EXHAUSTED, sentence)
        self.full = full


@dataclass(frozen=True, slots=True)
class _Cluster:
    """The pools of one cluster, in the order in which they are asked."""

    pools: tuple[PoolStock, ...]
    wishes: tuple[AddressWish, ...]
    """What a VM without wishes gets: one address of each family that the pools have."""


class Stock:
    """All networks and pools. Taking and giving back is decided here, in memory, by the one writer."""

    def __init__(self, networks: Iterable[NetworkSpec], pools: Iterable[PoolSpec], in_use: Iterable[InUse]) -> None:
        self.networks = {network.name: network for network in networks}
        self._active = ActiveNetworks(self.networks.values())
        self.quarantine = Quarantine()
        of_pool: dict[ResourceName, list[InUse]] = {spec.name: [] for spec in pools}
        for each in in_use:
            of_pool[each.pool].append(each)
            if each.rests_until is not None:
                self.quarantine.rest(each.address, each.rests_until)
        self._pools = {spec.name: PoolStock(spec, of_pool[spec.name], self.gateways) for spec in pools}
        self._clusters = _by_cluster(self)

    @property
    def pools(self) -> Mapping[ResourceName, PoolSpec]:
        """Every pool as it was applied."""
        return {name: pool.spec for name, pool in self._pools.items()}

    @property
    def gateways(self) -> Collection[HostAddress]:
        """Addresses that belong to routers of networks."""
        return self._active.gateways

    def __iter__(self) -> Iterator[PoolStock]:
        """Every pool, in the order of their names."""
        return iter([self._pools[name] for name in sorted(self._pools)])

    def set_network(self, spec: NetworkSpec) -> None:
        """Add or replace a network. A pool with a block of it has to be set again when its gateway changes."""
        self.networks[spec.name] = spec
        self._active = ActiveNetworks(self.networks.values())

    def set_pool(self, spec: PoolSpec, in_use: Iterable[InUse]) -> None:
        """Add or replace a pool; `in_use` is all that is held or rests of it."""
        self._pools[spec.name] = PoolStock(spec, in_use, self.gateways)
        self._clusters = _by_cluster(self)

    def take(self, key: VmKey, node: NodeName, wishes: Sequence[AddressWish] | None) -> tuple[Given, ...]:
        """All of what a VM on this node wishes, or nothing and Refused.

        Without wishes, one of each family that the cluster has.
        """
        wanted = self._cluster(key.cluster).wishes if wishes is None else wishes
        taken: dict[int, Given] = {}
        try:
            for position in _choosiest_first(wanted):
                taken[position] = self._take_one(key.cluster, node, wanted[position])
        except Refused:
            for each in taken.values():
                self._give_back(each)
            raise
        return tuple(taken[position] for position in range(len(wanted)))

    def told(self, given: Given) -> AllocatedAddress:
        """An address as the world is told of it, with what its network has for it."""
        network = self._active.around(given.address)
        if network is None:
            return AllocatedAddress(address=given.address, pool=given.pool)
        return AllocatedAddress(
            address=given.address,
            pool=given.pool,
            network=network.prefix,
            gateway=network.gateway,
            vlan=network.vlan,
        )

    def rest(self, given: Given, now: datetime) -> datetime:
        """A released address stays taken until the moment that is returned, and until `free` is called for it."""
        pool = self._pools[given.pool]
        until = now + timedelta(seconds=pool.spec.quarantine_seconds)
        _around(pool, given.address).resting += 1
        self.quarantine.rest(given.address, until)
        return until

    def free(self, given: Given) -> None:
        """The rest of an address is over."""
        self.quarantine.end(given.address)
        _around(self._pools[given.pool], given.address).resting -= 1
        self._give_back(given)

    def _give_back(self, given: Given) -> None:
        _around(self._pools[given.pool], given.address).allocator.give_back(int(given.address))

    def _take_one(self, cluster: ClusterName, node: NodeName, wish: AddressWish) -> Given:
        candidates = self._candidates(cluster, wish)
        if wish.address is not None:
            return self._take_chosen(candidates, node, wish.address)
        for pool in candidates:
            share = pool.for_vms_of(node, wish.family)
            number = share.allocator.take_lowest() if share is not None else None
            if number is not None:
                return Given(address_of(wish.family, number), pool.spec.name)
        raise _exhausted(cluster, node, wish.family, candidates)

    def _candidates(self, cluster: ClusterName, wish: AddressWish) -> list[PoolStock]:
        """The pools that the wish may be taken from, in the order in which they are asked."""
        pools = self._cluster(cluster).pools
        if wish.pool is not None:
            pools = tuple(pool for pool in pools if pool.spec.name == wish.pool)
            if not pools:
                raise self._unknown_pool(cluster, wish.pool)
        of_family = [pool for pool in pools if wish.family in pool.families]
        if not of_family:
            names = " and ".join(pool.spec.name for pool in pools)
            raise Refused(
                Code.FAMILY_NOT_IN_POOL,
                f"an {wish.family} address is wanted, but pool {names} of cluster {cluster} has no {wish.family} "
                "block; add one, or ask for another pool or family",
            )
        return of_family

    def _cluster(self, name: ClusterName) -> "_Cluster":
        cluster = self._clusters.get(name)
        if cluster is None:
            raise Refused(Code.UNKNOWN_POOL, f"cluster {name} has no pool; apply one that names the cluster")
        return cluster

    def _unknown_pool(self, cluster: ClusterName, name: ResourceName) -> Refused:
        other = self._pools.get(name)
        found = "there is no such pool" if other is None else f"it belongs to cluster {other.spec.cluster}"
        known = ", ".join(pool.spec.name for pool in self._cluster(cluster).pools)
        return Refused(
            Code.UNKNOWN_POOL, f"an address of pool {name} is wanted, but {found}; cluster {cluster} has {known}"
        )

    def _take_chosen(self, candidates: Sequence[PoolStock], node: NodeName, address: HostAddress) -> Given:
        pool = next((pool for pool in candidates if _has_block_with(pool, address)), None)
        if pool is None:
            names = " and ".join(pool.spec.name for pool in candidates)
            raise Refused(Code.UNKNOWN_ADDRESS, f"{address} is wanted, but it lies in no block of pool {names}")
        share = pool.around(address)
        if share is None:
            why = hindrance(address, pool.spec, self.gateways)
            raise Refused(Code.ADDRESS_EXCLUDED, f"{address} is wanted, but {why}; choose another")
        if share is not pool.for_vms_of(node, Family.of(address)):
            raise Refused(
                Code.ADDRESS_EXCLUDED,
                f"{address} is wanted by a VM on node {node}, but in pool {pool.spec.name} it is for VMs on node "
                f"{node_of(address, pool.spec)}; choose one of the range of {node}, or ask for the other node",
            )
        if not share.allocator.take(int(address)):
            raise self._not_free(address)
        return Given(address, pool.spec.name)

    def _not_free(self, address: HostAddress) -> Refused:
        until = self.quarantine.until(address)
        if until is not None:
            return Refused(
                Code.ADDRESS_QUARANTINED,
                f"{address} is wanted, but it was released a short while ago and rests until "
                f"{until.isoformat(timespec='seconds')}; ask again then, or choose another",
            )
        return Refused(
            Code.ADDRESS_TAKEN, f"{address} is wanted, but it is taken; ip.explain says by whom, or choose another"
        )


def _choosiest_first(wishes: Sequence[AddressWish]) -> list[int]:
    """The places of the wishes, so that none takes what a choosier one of the same VM needs."""
    return sorted(
        range(len(wishes)), key=lambda position: (wishes[position].address is None, wishes[position].pool is None)
    )


def _by_cluster(pools: Iterable[PoolStock]) -> dict[ClusterName, _Cluster]:
    grouped: dict[ClusterName, tuple[PoolStock, ...]] = {}
    for pool in pools:
        grouped[pool.spec.cluster] = (*grouped.get(pool.spec.cluster, ()), pool)
    return {name: _Cluster(own, _one_of_each_family(own)) for name, own in grouped.items()}


def _one_of_each_family(pools: Sequence[PoolStock]) -> tuple[AddressWish, ...]:
    return tuple(AddressWish(family=family) for family in Family if any(family in pool.families for pool in pools))


def _has_block_with(pool: PoolStock, address: HostAddress) -> bool:
    return any(address in block for block in pool.spec.blocks)


def _around(pool: PoolStock, address: HostAddress) -> ShareStock:
    share = pool.around(address)
    if share is None:
        raise ValueError(f"{address} is in use, but pool {pool.spec.name} does not give it")
    return share


def _exhausted(cluster: ClusterName, node: NodeName, family: Family, pools: Sequence[PoolStock]) -> ExhaustedError:
    full = tuple(_full(pool, node, family) for pool in pools)
    names = " and ".join(f"{each.pool}{f' for node {each.node}' if each.node else ''}" for each in full)
    resting = sum(each.quarantined for each in full)
    return ExhaustedError(
        f"an {family} address is wanted, but pool {names} of cluster {cluster} has no free one; "
        f"{resting} rest in quarantine: add a block{' or a range' if any(each.node for each in full) else ''}, "
        "or ask again later",
        full,
    )


def _full(pool: PoolStock, node: NodeName, family: Family) -> IpExhausted:
    share = pool.for_vms_of(node, family)
    return IpExhausted(
        cluster=pool.spec.cluster,
        pool=pool.spec.name,
        family=family,
        node=node if pool.spec.ranges else None,
        quarantined=share.resting if share is not None else 0,
    )
