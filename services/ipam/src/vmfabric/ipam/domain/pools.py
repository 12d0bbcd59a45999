"""What networks and pools may be, and what a change of them must not do."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from netaddr import IPSet
from pydantic import BaseModel

from vmfabric.contract.addresses import Family, HostAddress, Prefix
from vmfabric.contract.desired import DesiredPools
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.names import ClusterName, ResourceName
from vmfabric.contract.pool import NetworkSpec, PoolSpec
from vmfabric.ipam.domain.allocation import Range

_NAMED = 5
"""So many addresses are named in a refusal."""

Networks = Mapping[ResourceName, NetworkSpec]
Pools = Mapping[ResourceName, PoolSpec]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address lies."""

    network: NetworkSpec | None
    pool: PoolSpec | None
    excluded: bool


def address_of(family: Family, number: int) -> HostAddress:
    """The address with this number."""
    return IPv4Address(number) if family is Family.IPV4 else IPv6Address(number)


def families(spec: PoolSpec) -> tuple[Family, ...]:
    """The families that the pool has blocks of, IPv4 first."""
    found = {Family.of(block) for block in spec.blocks}
    return tuple(family for family in Family if family in found)


def usable(spec: PoolSpec, family: Family) -> tuple[Range, ...]:
    """What the pool may give of a family, ascending: its blocks without what is excluded."""
    rest = _set_of(spec.blocks, family) - _set_of(spec.exclude, family)
    return tuple(Range(each.first, each.last) for each in rest.iter_ipranges())


def check_network(spec: NetworkSpec, networks: Networks, pools: Pools) -> None:
    """Refused when it overlaps another network, or would leave a block of a pool outside."""
    for other in networks.values():
        if other.name != spec.name and other.prefix.overlaps(spec.prefix):
            raise Refused(
                Code.OVERLAP,
                f"network {spec.name} would be {spec.prefix}, which overlaps network {other.name} ({other.prefix}); "
                "choose a prefix that no other network has",
            )
    old = networks.get(spec.name)
    if old is None:
        return
    for pool in pools.values():
        for block in pool.blocks:
            if _inside(block, old.prefix) and not _inside(block, spec.prefix):
                raise Refused(
                    Code.IN_USE,
                    f"network {spec.name} would be {spec.prefix}, but block {block} of pool {pool.name} lies outside;"
                    " take the block out of the pool first",
                )


def check_pool(spec: PoolSpec, networks: Networks, pools: Pools) -> None:
    """Refused when a block lies in no network or overlaps a block of another pool."""
    for block in spec.blocks:
        if not any(_inside(block, network.prefix) for network in networks.values()):
            raise Refused(
                Code.UNKNOWN_NETWORK,
                f"block {block} of pool {spec.name} lies in no network; apply a network that contains it first",
            )
        for other in pools.values():
            if other.name != spec.name:
                _check_disjoint(spec, block, other)


def check_kept(old: PoolSpec, new: PoolSpec, in_use: Iterable[HostAddress]) -> None:
    """Refused when an address that is held or rests would no longer be the pool's to give."""
    addresses = sorted(in_use, key=lambda address: (address.version, int(address)))
    if addresses and old.cluster != new.cluster:
        raise Refused(
            Code.IN_USE,
            f"pool {new.name} cannot go from cluster {old.cluster} to {new.cluster} while {_named(addresses)} "
            f"{_is_or_are(addresses)} in use; delete the VMs and wait for the quarantine first",
        )
    kept = {family: _set_of(new.blocks, family) - _set_of(new.exclude, family) for family in Family}
    stranded = [address for address in addresses if str(address) not in kept[Family.of(address)]]
    if stranded:
        raise Refused(
            Code.IN_USE,
            f"pool {new.name} cannot change so: {_named(stranded)} {_is_or_are(stranded)} in use and would lie "
            "outside its blocks or be excluded; ip.explain says who holds an address",
        )


def changed_fields(old: BaseModel, new: BaseModel) -> tuple[str, ...]:
    """The fields in which two specs of the same kind differ."""
    return tuple(name for name in type(new).model_fields if getattr(old, name) != getattr(new, name))


def desired_pools(cluster: ClusterName, pools: Pools) -> DesiredPools:
    """The blocks of all pools of a cluster, in a fixed order."""
    blocks = [block for pool in pools.values() if pool.cluster == cluster for block in pool.blocks]
    return DesiredPools(cluster=cluster, prefixes=tuple(sorted(blocks, key=_order)))


def every_desired_pools(pools: Pools) -> tuple[DesiredPools, ...]:
    """The desired state of every cluster that has a pool."""
    return tuple(desired_pools(cluster, pools) for cluster in sorted({pool.cluster for pool in pools.values()}))


def place(address: HostAddress, networks: Networks, pools: Pools) -> Place:
    """The network and the pool that an address lies in."""
    network = next((each for each in networks.values() if address in each.prefix), None)
    pool = next((each for each in pools.values() if any(address in block for block in each.blocks)), None)
    excluded = pool is not None and any(address in each for each in pool.exclude)
    return Place(network, pool, excluded)


def _set_of(prefixes: Iterable[Prefix], family: Family) -> IPSet:
    return IPSet([str(prefix) for prefix in prefixes if Family.of(prefix) is family])


def _check_disjoint(spec: PoolSpec, block: Prefix, other: PoolSpec) -> None:
    for taken in other.blocks:
        if taken.overlaps(block):
            raise Refused(
                Code.OVERLAP,
                f"block {block} of pool {spec.name} overlaps block {taken} of pool {other.name}; "
                "an address belongs to one pool only",
            )


def _inside(inner: Prefix, outer: Prefix) -> bool:
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner.subnet_of(outer)
    return False


def _order(prefix: Prefix) -> tuple[int, int, int]:
    return (prefix.version, int(prefix.network_address), prefix.prefixlen)


def _named(addresses: list[HostAddress]) -> str:
    named = ", ".join(str(address) for address in addresses[:_NAMED])
    more = len(addresses) - _NAMED
    return f"{named} and {more} more" if more > 0 else named


def _is_or_are(addresses: list[HostAddress]) -> str:
    return "is" if len(addresses) == 1 else "are"
