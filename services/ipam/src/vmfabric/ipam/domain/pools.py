"""What pools may be, and where an address lies."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from vmfabric.contract.addresses import Family, HostAddress, Prefix, lies_inside
from vmfabric.contract.desired import DesiredPools
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.names import ClusterName, NodeName, ResourceName
from vmfabric.contract.pool import NetworkKind, NetworkSpec, PoolSpec
from vmfabric.ipam.domain.networks import Networks, Withheld, surrounding
from vmfabric.ipam.domain.units import delegated, units

Pools = Mapping[ResourceName, PoolSpec]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address lies."""

    network: NetworkSpec | None
    """The active one, or else the smallest container."""
    pool: PoolSpec | None
    node: NodeName | None
    """Whose range it lies in, where the pool has ranges."""
    hindrance: str | None
    """Why no VM can have it, if none can."""


def check_pool(spec: PoolSpec, networks: Networks, pools: Pools) -> None:
    """Refused when a block lies in no active network, overlaps a block of another pool, or cannot be delegated."""
    check_delegation(spec, networks.values())
    for block in spec.blocks:
        around = [network for network in networks.values() if lies_inside(block, network.prefix)]
        if not any(network.kind is NetworkKind.ACTIVE for network in around):
            found = f"only in container {around[0].name}" if around else "in no network"
            raise Refused(
                Code.UNKNOWN_NETWORK,
                f"block {block} of pool {spec.name} lies {found}; apply an active network that contains it first",
            )
        for other in pools.values():
            if other.name != spec.name:
                _check_disjoint(spec, block, other)


def check_delegation(spec: PoolSpec, networks: Iterable[NetworkSpec]) -> None:
    """Refused when VMs should get whole prefixes of a network where they are neighbours."""
    if spec.ipv6_length == Family.IPV6.host_length:
        return
    for network in networks:
        is_segment = network.segment or network.gateway is not None
        if is_segment and any(block.version == 6 and lies_inside(block, network.prefix) for block in spec.blocks):
            raise Refused(
                Code.CONFLICT,
                f"pool {spec.name} gives each VM a /{spec.ipv6_length} of network {network.name}, where VMs are "
                "neighbours and nobody routes a prefix to one of them: give single addresses of it (ipv6_length "
                "128), or take the prefixes from a network that has no gateway and is no segment",
            )


def changed_fields(old: BaseModel, new: BaseModel) -> tuple[str, ...]:
    """The fields in which two specs of the same kind differ."""
    return tuple(name for name in type(new).model_fields if getattr(old, name) != getattr(new, name))


def desired_pools(cluster: ClusterName, pools: Pools) -> DesiredPools:
    """The blocks of all pools of a cluster, in a fixed order."""
    own = [pool for pool in pools.values() if pool.cluster == cluster]
    lengths = {
        block: pool.ipv6_length
        for pool in own
        for block in pool.blocks
        if block.version == 6 and pool.ipv6_length < block.max_prefixlen
    }
    return DesiredPools(
        cluster=cluster,
        prefixes=tuple(sorted((block for pool in own for block in pool.blocks), key=_order)),
        lengths={block: lengths[block] for block in sorted(lengths, key=_order)},
    )


def every_desired_pools(pools: Pools) -> tuple[DesiredPools, ...]:
    """The desired state of every cluster that has a pool."""
    return tuple(desired_pools(cluster, pools) for cluster in sorted({pool.cluster for pool in pools.values()}))


def place(address: HostAddress, networks: Networks, pools: Pools, withheld: Withheld) -> Place:
    """The network, the pool and the range that an address lies in, and whether any VM could get it."""
    pool = next((each for each in pools.values() if any(address in block for block in each.blocks)), None)
    return Place(
        network=surrounding(address, networks),
        pool=pool,
        node=node_of(address, pool) if pool is not None else None,
        hindrance=hindrance(address, pool, withheld) if pool is not None else "it lies in no pool",
    )


def hindrance(address: HostAddress, pool: PoolSpec, withheld: Withheld) -> str | None:
    """Why no VM can have this address of a block of the pool; None when one can."""
    prefix = delegated(address, pool.ipv6_length)
    if any(address in each or (prefix is not None and each.overlaps(prefix)) for each in pool.exclude):
        return f"pool {pool.name} excludes {'it' if prefix is None else f'some of its {prefix}'}"
    if (reason := withheld.get(address)) is not None:
        return reason
    if pool.ranges and node_of(address, pool) is None:
        return f"it lies in no node's range of pool {pool.name}"
    return None


def node_of(address: HostAddress, pool: PoolSpec) -> NodeName | None:
    """The node whose range the address lies in."""
    own = units(pool, Family.of(address))
    number = own.number_of(address)
    for node, ranges in pool.ranges.items():
        for each in ranges:
            if each.family is own.family and own.number_of(each.first) <= number <= own.number_of(each.last):
                return node
    return None


def _check_disjoint(spec: PoolSpec, block: Prefix, other: PoolSpec) -> None:
    for taken in other.blocks:
        if taken.overlaps(block):
            raise Refused(
                Code.OVERLAP,
                f"block {block} of pool {spec.name} overlaps block {taken} of pool {other.name}; "
                "an address belongs to one pool only",
            )


def _order(prefix: Prefix) -> tuple[int, int, int]:
    return (prefix.version, int(prefix.network_address), prefix.prefixlen)
