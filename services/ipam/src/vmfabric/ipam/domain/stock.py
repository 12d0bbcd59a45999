"""What the pools of all clusters have to give, and giving it."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from vmfabric.contract.addresses import Family, HostAddress, Prefix
from vmfabric.contract.addressing import Reservation
from vmfabric.contract.errors import Refused
from vmfabric.contract.ip import AllocatedAddress
from vmfabric.contract.names import ClusterName, NodeName, ResourceName
from vmfabric.contract.pool import NetworkSpec, PoolSpec
from vmfabric.contract.vm import AddressWish
from vmfabric.ipam.domain.deadlines import Deadlines
from vmfabric.ipam.domain.keeping import InUse
from vmfabric.ipam.domain.lease import Given, VmKey
from vmfabric.ipam.domain.networks import ActiveNetworks, Withheld
from vmfabric.ipam.domain.pool_stock import Blocks, PoolStock, ShareStock
from vmfabric.ipam.domain.refusals import (
    asked_twice,
    exhausted,
    hindered,
    of_another_node,
    quarantined,
    taken,
    unknown_address,
    unknown_pool,
    without_family,
    without_pool,
)
from vmfabric.ipam.domain.reservations import Reservations
from vmfabric.ipam.domain.units import delegated


@dataclass(frozen=True, slots=True)
class _Cluster:
    """The pools of one cluster, in the order in which they are asked."""

    pools: tuple[PoolStock, ...]
    by_vlan: tuple[tuple[PoolStock, ...], ...]
    """Those of each VLAN, where there are several."""
    wishes: tuple[AddressWish, ...]
    """What a VM without wishes gets where every node has the same: one address of each family that the pools have."""

    def wishes_on(self, node: NodeName) -> tuple[AddressWish, ...]:
        """What it gets on this node: of each family that its VMs may have. Where they may have none, all are wanted,
        and the refusal says so.
        """
        own = [wish for wish in self.wishes if any(pool.for_vms_of(node, wish.family) for pool in self.pools)]
        return tuple(own) or self.wishes


class Stock:
    """All networks and pools. Taking and giving back is decided here, in memory, by the one writer."""

    def __init__(
        self,
        networks: Iterable[NetworkSpec],
        pools: Collection[PoolSpec],
        in_use: Sequence[InUse],
        reservations: Sequence[Reservation] = (),
    ) -> None:
        self.networks = {network.name: network for network in networks}
        self._active = ActiveNetworks(self.networks.values())
        self.quarantine = Deadlines()
        reserved = {each.address for each in reservations}
        self.reservations = Reservations(
            reservations, in_use={each.address for each in in_use if each.address in reserved}
        )
        self._left_by: dict[HostAddress, VmKey] = {}
        """Whose each resting address was."""
        cluster_of = {spec.name: spec.cluster for spec in pools}
        of_pool: dict[ResourceName, list[InUse]] = {spec.name: [] for spec in pools}
        for each in in_use:
            of_pool[each.pool].append(each)
            if each.rests_until is not None:
                self.quarantine.set(each.address, each.rests_until)
                self._left_by[each.address] = VmKey(cluster_of[each.pool], each.vm)
        self._pools = {spec.name: self._pool_stock(spec, of_pool[spec.name]) for spec in pools}
        self._sort()

    @property
    def pools(self) -> Mapping[ResourceName, PoolSpec]:
        """Every pool as it was applied."""
        return {name: pool.spec for name, pool in self._pools.items()}

    @property
    def withheld(self) -> Withheld:
        """Addresses that no VM can have in their network."""
        return self._active.withheld

    def __iter__(self) -> Iterator[PoolStock]:
        """Every pool, in the order of their names."""
        return iter([self._pools[name] for name in sorted(self._pools)])

    def pool(self, name: ResourceName) -> PoolStock | None:
        """What the pool of this name has to give."""
        return self._pools.get(name)

    def pool_around(self, address: HostAddress) -> PoolStock | None:
        """The pool in one of whose blocks the address lies."""
        return self._blocks.pool_around(address)

    def named(self, address: HostAddress) -> HostAddress:
        """By which address this one is known: where VMs get whole prefixes, by that of its prefix."""
        pool = self.pool_around(address)
        if pool is None:
            return address
        units = pool.units(Family.of(address))
        return units.address_of(units.number_of(address))

    def wished(self, wishes: Sequence[AddressWish] | None) -> Sequence[AddressWish] | None:
        """The same with every address as it is known. Refused when two are of one prefix."""
        found: list[AddressWish] = []
        chosen: dict[HostAddress, HostAddress] = {}
        for wish in wishes or ():
            if wish.address is None:
                found.append(wish)
                continue
            name = self.named(wish.address)
            if name in chosen:
                raise asked_twice(chosen[name], wish.address)
            chosen[name] = wish.address
            found.append(wish.model_copy(update={"address": name}))
        return None if wishes is None else found

    def prefix_of(self, given: Given) -> Prefix | None:
        """What goes with the address; None where that is nothing."""
        return delegated(given.address, self._pools[given.pool].spec.ipv6_length)

    def set_network(self, spec: NetworkSpec) -> None:
        """Add or replace a network. A pool with a block of it has to be set again when its gateway changes."""
        self.networks[spec.name] = spec
        self._active = ActiveNetworks(self.networks.values())

    def set_pool(self, spec: PoolSpec, in_use: Collection[InUse]) -> None:
        """Add or replace a pool; `in_use` is all that is held or rests of it."""
        self._pools[spec.name] = self._pool_stock(spec, in_use)
        self._sort()

    def drop_network(self, name: ResourceName) -> None:
        """No block of a pool is cut from it."""
        del self.networks[name]
        self._active = ActiveNetworks(self.networks.values())

    def drop_pool(self, name: ResourceName) -> None:
        """Nothing of it is held, rests or is reserved."""
        del self._pools[name]
        self._sort()

    def take(self, key: VmKey, node: NodeName, wishes: Sequence[AddressWish] | None) -> tuple[Given, ...]:
        """All of what a VM on this node wishes, or nothing and Refused.

        Without wishes, one of each family that there is for VMs of the node. All of it is of one VLAN if that can be,
        since a VM has one port.
        """
        cluster = self._cluster(key.cluster)
        wanted = cluster.wishes_on(node) if wishes is None else wishes
        for pools in cluster.by_vlan:
            with suppress(Refused):
                return self._take_all(key, node, wanted, pools)
        return self._take_all(key, node, wanted, cluster.pools)

    def _take_all(
        self, key: VmKey, node: NodeName, wanted: Sequence[AddressWish], pools: Sequence[PoolStock]
    ) -> tuple[Given, ...]:
        rested = {wish.address: self.quarantine.until(wish.address) for wish in wanted if wish.address is not None}
        found: dict[int, Given] = {}
        try:
            for position in _choosiest_first(wanted):
                found[position] = self._take_one(key, node, wanted[position], pools)
        except Refused:
            for each in found.values():
                until = rested.get(each.address)
                if until is None:
                    self._give_back(each)
                else:
                    self._rest_until(key, each, until)
            raise
        return tuple(found[position] for position in range(len(wanted)))

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
            prefix=self.prefix_of(given),
        )

    def rest(self, key: VmKey, given: Given, now: datetime) -> datetime:
        """An address that the VM has released stays taken until the moment that is returned, and until `free` is
        called for it.
        """
        until = now + timedelta(seconds=self._pools[given.pool].spec.quarantine_seconds)
        self._rest_until(key, given, until)
        return until

    def free(self, given: Given) -> None:
        """The rest of an address is over."""
        self._end_rest(_around(self._pools[given.pool], given.address), given.address)
        self._give_back(given)

    def reserve(self, reservation: Reservation) -> None:
        """Keep an address that is free, rests, is held by its VM, or is reserved already."""
        address = reservation.address
        if self.reservations.get(address) is not None:
            is_in_use = self.reservations.is_in_use(address)
        else:
            share = _around(self._pools[reservation.pool], address)
            is_in_use = not share.take(address)
            share.reserved += not is_in_use
        self.reservations.put(reservation, is_in_use=is_in_use)

    def end_reservation(self, reservation: Reservation) -> None:
        """Keep the address for nobody; it is free unless a VM has it or it rests."""
        address = reservation.address
        if not self.reservations.is_in_use(address):
            share = _around(self._pools[reservation.pool], address)
            share.give_back(address)
            share.reserved -= 1
        self.reservations.drop(address)

    def _rest_until(self, key: VmKey, given: Given, until: datetime) -> None:
        _around(self._pools[given.pool], given.address).resting += 1
        self.quarantine.set(given.address, until)
        self._left_by[given.address] = key

    def _end_rest(self, share: ShareStock, address: HostAddress) -> None:
        share.resting -= 1
        self.quarantine.drop(address)
        del self._left_by[address]

    def _give_back(self, given: Given) -> None:
        share = _around(self._pools[given.pool], given.address)
        if given.address in self.withheld:
            return  # a VM has had it from before it was withheld, and is the last
        if self.reservations.get(given.address) is None:
            share.give_back(given.address)
        else:
            self.reservations.go_out_of_use(given.address)
            share.reserved += 1

    def _take_one(self, key: VmKey, node: NodeName, wish: AddressWish, pools: Sequence[PoolStock]) -> Given:
        candidates = self._candidates(key.cluster, wish, pools)
        if wish.address is not None:
            return self._take_chosen(key, node, candidates, wish.address)
        for pool in candidates:
            share = pool.for_vms_of(node, wish.family)
            address = share.take_lowest() if share is not None else None
            if address is not None:
                return Given(address, pool.spec.name)
        raise exhausted(node, wish.family, candidates)

    def _candidates(self, cluster: ClusterName, wish: AddressWish, pools: Sequence[PoolStock]) -> Sequence[PoolStock]:
        """Those of these pools that the wish may be taken from, in the order in which they are asked."""
        if wish.pool is not None:
            pools = [pool for pool in pools if pool.spec.name == wish.pool]
            if not pools:
                raise unknown_pool(wish.pool, self._pools.get(wish.pool), self._cluster(cluster).pools)
        of_family = [pool for pool in pools if wish.family in pool.families]
        if not of_family:
            raise without_family(cluster, wish.family, pools)
        return of_family

    def _cluster(self, name: ClusterName) -> "_Cluster":
        cluster = self._clusters.get(name)
        if cluster is None:
            raise without_pool(name)
        return cluster

    def _take_chosen(
        self, key: VmKey, node: NodeName, candidates: Sequence[PoolStock], address: HostAddress
    ) -> Given:
        pool = next((pool for pool in candidates if pool.has_block_with(address)), None)
        if pool is None:
            raise unknown_address(address, candidates)
        share = pool.around(address)
        if share is None:
            raise hindered(address, pool, self.withheld)
        if share is not pool.for_vms_of(node, Family.of(address)):
            raise of_another_node(address, node, pool)
        if self.reservations.admits(key, address):
            self.reservations.come_into_use(address)
            share.reserved -= 1
        elif self._left_by.get(address) == key and self.reservations.is_for(key, address):
            self._end_rest(share, address)
        elif not share.take(address):
            raise self._not_free(address)
        return Given(address, pool.spec.name)

    def _not_free(self, address: HostAddress) -> Refused:
        until = self.quarantine.until(address)
        if until is not None:
            return quarantined(address, until)
        return taken(address, self.reservations.get(address))

    def _sort(self) -> None:
        self._clusters = _by_cluster(self, self._active)
        self._blocks = Blocks(self._pools.values())

    def _pool_stock(self, spec: PoolSpec, in_use: Collection[InUse]) -> PoolStock:
        reserved = [each.address for each in self.reservations.of_pool(spec.name)]
        beside = [address for address in reserved if not self.reservations.is_in_use(address)]
        there = {each.address for each in in_use} | {*reserved}
        return PoolStock(spec, self.withheld.keys() - there, in_use, beside)


def _choosiest_first(wishes: Sequence[AddressWish]) -> list[int]:
    """The places of the wishes, so that none takes what a choosier one of the same VM needs."""
    return sorted(
        range(len(wishes)), key=lambda position: (wishes[position].address is None, wishes[position].pool is None)
    )


def _by_cluster(pools: Iterable[PoolStock], active: ActiveNetworks) -> dict[ClusterName, _Cluster]:
    grouped: defaultdict[ClusterName, list[PoolStock]] = defaultdict(list)
    for pool in pools:
        grouped[pool.spec.cluster].append(pool)
    return {
        name: _Cluster(tuple(own), _by_vlan(own, active), _one_of_each_family(own)) for name, own in grouped.items()
    }


def _by_vlan(pools: Iterable[PoolStock], active: ActiveNetworks) -> tuple[tuple[PoolStock, ...], ...]:
    grouped: defaultdict[frozenset[int | None], list[PoolStock]] = defaultdict(list)
    for pool in pools:
        around = [active.around(block.network_address) for block in pool.spec.blocks]
        grouped[frozenset(network.vlan if network is not None else None for network in around)].append(pool)
    return tuple(map(tuple, grouped.values())) if len(grouped) > 1 else ()


def _one_of_each_family(pools: Sequence[PoolStock]) -> tuple[AddressWish, ...]:
    return tuple(AddressWish(family=family) for family in Family if any(family in pool.families for pool in pools))


def _around(pool: PoolStock, address: HostAddress) -> ShareStock:
    share = pool.around(address)
    if share is None:
        raise ValueError(f"{address} is in use, but pool {pool.spec.name} does not give it")
    return share
