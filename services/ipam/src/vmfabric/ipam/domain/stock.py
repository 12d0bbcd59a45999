"""What the pools of all clusters have to give, and giving it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from vmfabric.contract.addresses import Family, HostAddress
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.ip import AllocatedAddress, IpExhausted
from vmfabric.contract.names import ClusterName, ResourceName
from vmfabric.contract.pool import NetworkSpec, PoolSpec
from vmfabric.contract.vm import AddressWish
from vmfabric.ipam.domain.allocation import Allocator
from vmfabric.ipam.domain.pools import address_of, families, usable
from vmfabric.ipam.domain.quarantine import Quarantine


class InUse(NamedTuple):
    """An address that cannot be given now."""

    address: HostAddress
    pool: ResourceName
    rests_until: datetime | None
    """None when a VM holds it."""


class ExhaustedError(Refused):
    """No pool that would do has a free address."""

    def __init__(self, sentence: str, full: tuple[IpExhausted, ...]) -> None:
        super().__init__(Code.POOL_EXHAUSTED, sentence)
        self.full = full


class PoolStock:
    """One pool: an allocator for each family that it has."""

    def __init__(self, spec: PoolSpec, in_use: Iterable[InUse]) -> None:
        self.spec = spec
        self.resting: Counter[Family] = Counter()
        taken: dict[Family, list[int]] = {family: [] for family in families(spec)}
        for address, _, rests_until in in_use:
            taken[Family.of(address)].append(int(address))
            if rests_until is not None:
                self.resting[Family.of(address)] += 1
        self.allocators = {family: Allocator(usable(spec, family), numbers) for family, numbers in taken.items()}


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
        self.quarantine = Quarantine()
        of_pool: dict[ResourceName, list[InUse]] = {spec.name: [] for spec in pools}
        for each in in_use:
            of_pool[each.pool].append(each)
            if each.rests_until is not None:
                self.quarantine.rest(each.address, each.rests_until)
        self._pools = {spec.name: PoolStock(spec, of_pool[spec.name]) for spec in pools}
        self._clusters = _by_cluster(self)

    @property
    def pools(self) -> Mapping[ResourceName, PoolSpec]:
        """Every pool as it was applied."""
        return {name: pool.spec for name, pool in self._pools.items()}

    def __iter__(self) -> Iterator[PoolStock]:
        """Every pool, in the order of their names."""
        return iter([self._pools[name] for name in sorted(self._pools)])

    def set_pool(self, spec: PoolSpec, in_use: Iterable[InUse]) -> None:
        """Add or replace a pool; `in_use` is all that is held or rests of it."""
        self._pools[spec.name] = PoolStock(spec, in_use)
        self._clusters = _by_cluster(self)

    def take(self, cluster: ClusterName, wishes: Sequence[AddressWish] | None) -> tuple[AllocatedAddress, ...]:
        """All of what is wished, or nothing and Refused. Without wishes, one of each family that the cluster has."""
        taken: list[AllocatedAddress] = []
        try:
            for wish in self._cluster(cluster).wishes if wishes is None else wishes:
                taken.append(self._take_one(cluster, wish))  # noqa: PERF401  # what was taken before a refusal counts
        except Refused:
            for each in taken:
                self._give_back(each.address, each.pool)
            raise
        return tuple(taken)

    def rest(self, address: HostAddress, pool: ResourceName, now: datetime) -> datetime:
        """A released address stays taken until the moment that is returned, and until `free` is called for it."""
        stock = self._pools[pool]
        until = now + timedelta(seconds=stock.spec.quarantine_seconds)
        stock.resting[Family.of(address)] += 1
        self.quarantine.rest(address, until)
        return until

    def free(self, address: HostAddress, pool: ResourceName) -> None:
        """The rest of an address is over."""
        self.quarantine.end(address)
        self._pools[pool].resting[Family.of(address)] -= 1
        self._give_back(address, pool)

    def _give_back(self, address: HostAddress, pool: ResourceName) -> None:
        self._pools[pool].allocators[Family.of(address)].give_back(int(address))

    def _take_one(self, cluster: ClusterName, wish: AddressWish) -> AllocatedAddress:
        candidates = self._candidates(cluster, wish)
        if wish.address is not None:
            return self._take_chosen(candidates, wish.address)
        for pool in candidates:
            number = pool.allocators[wish.family].take_lowest()
            if number is not None:
                return AllocatedAddress(address=address_of(wish.family, number), pool=pool.spec.name)
        raise _exhausted(cluster, wish.family, candidates)

    def _candidates(self, cluster: ClusterName, wish: AddressWish) -> list[PoolStock]:
        """The pools that the wish may be taken from, in the order in which they are asked."""
        pools = self._cluster(cluster).pools
        if wish.pool is not None:
            pools = tuple(pool for pool in pools if pool.spec.name == wish.pool)
            if not pools:
                raise self._unknown_pool(cluster, wish.pool)
        of_family = [pool for pool in pools if wish.family in pool.allocators]
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

    def _take_chosen(self, candidates: Sequence[PoolStock], address: HostAddress) -> AllocatedAddress:
        pool = next((pool for pool in candidates if _has_block_with(pool, address)), None)
        if pool is None:
            names = " and ".join(pool.spec.name for pool in candidates)
            raise Refused(Code.UNKNOWN_ADDRESS, f"{address} is wanted, but it lies in no block of pool {names}")
        allocator = pool.allocators[Family.of(address)]
        if not allocator.contains(int(address)):
            raise Refused(
                Code.ADDRESS_EXCLUDED, f"{address} is wanted, but pool {pool.spec.name} excludes it; choose another"
            )
        if not allocator.take(int(address)):
            raise self._not_free(address)
        return AllocatedAddress(address=address, pool=pool.spec.name)

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


def _by_cluster(pools: Iterable[PoolStock]) -> dict[ClusterName, _Cluster]:
    grouped: dict[ClusterName, tuple[PoolStock, ...]] = {}
    for pool in pools:
        grouped[pool.spec.cluster] = (*grouped.get(pool.spec.cluster, ()), pool)
    return {name: _Cluster(own, _one_of_each_family(own)) for name, own in grouped.items()}


def _one_of_each_family(pools: Sequence[PoolStock]) -> tuple[AddressWish, ...]:
    return tuple(AddressWish(family=family) for family in Family if any(family in pool.allocators for pool in pools))


def _has_block_with(pool: PoolStock, address: HostAddress) -> bool:
    return any(address in block for block in pool.spec.blocks)


def _exhausted(cluster: ClusterName, family: Family, pools: Sequence[PoolStock]) -> ExhaustedError:
    full = tuple(
        IpExhausted(cluster=cluster, pool=pool.spec.name, family=family, quarantined=pool.resting[family])
        for pool in pools
    )
    names = " and ".join(each.pool for each in full)
    resting = sum(each.quarantined for each in full)
    return ExhaustedError(
        f"an {family} address is wanted, but pool {names} of cluster {cluster} has no free one; "
        f"{resting} rest in quarantine: add a block, or ask again later",
        full,
    )
