"""Why a VM cannot have the address that it wants, in words for whoever asked."""

from collections.abc import Sequence
from datetime import datetime

from vmfabric.contract.addresses import Family, HostAddress
from vmfabric.contract.addressing import Reservation
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.ip import IpExhausted
from vmfabric.contract.names import ClusterName, NodeName, ResourceName
from vmfabric.ipam.domain.networks import Withheld
from vmfabric.ipam.domain.pool_stock import PoolStock
from vmfabric.ipam.domain.pools import hindrance, node_of


class ExhaustedError(Refused):
    """No pool that would do has a free address."""

    def __init__(self, sentence: str, full: tuple[IpExhausted, ...]) -> None:
        super().__init__(Code.POOL_EXHAUSTED, sentence)
        self.full = full


def exhausted(node: NodeName, family: Family, pools: Sequence[PoolStock]) -> ExhaustedError:
    """Each of these pools would do, and is full."""
    full = tuple(_full(pool, node, family) for pool in pools)
    names = " and ".join(f"{each.pool}{f' for node {each.node}' if each.node else ''}" for each in full)
    resting = sum(each.quarantined for each in full)
    more = "a block or a range" if any(each.node for each in full) else "a block"
    return ExhaustedError(
        f"an {family} address is wanted, but pool {names} of cluster {full[0].cluster} has no free one; "
        f"{resting} rest in quarantine: add {more}, or ask again later",
        full,
    )


def without_pool(cluster: ClusterName) -> Refused:
    """The cluster has nothing to give."""
    return Refused(Code.UNKNOWN_POOL, f"cluster {cluster} has no pool; apply one that names the cluster")


def without_family(cluster: ClusterName, family: Family, pools: Sequence[PoolStock]) -> Refused:
    """None of these pools has a block of the family."""
    names = " and ".join(pool.spec.name for pool in pools)
    return Refused(
        Code.FAMILY_NOT_IN_POOL,
        f"an {family} address is wanted, but pool {names} of cluster {cluster} has no {family} block; add one, or "
        "ask for another pool or family",
    )


def unknown_pool(name: ResourceName, found: PoolStock | None, own: Sequence[PoolStock]) -> Refused:
    """The cluster, whose pools are `own`, has no pool of this name; another cluster may have."""
    other = "there is no such pool" if found is None else f"it belongs to cluster {found.spec.cluster}"
    known = ", ".join(pool.spec.name for pool in own)
    return Refused(
        Code.UNKNOWN_POOL,
        f"an address of pool {name} is wanted, but {other}; cluster {own[0].spec.cluster} has {known}",
    )


def unknown_address(address: HostAddress, pools: Sequence[PoolStock]) -> Refused:
    """It is not in any of the pools that may be asked."""
    names = " and ".join(pool.spec.name for pool in pools)
    return Refused(Code.UNKNOWN_ADDRESS, f"{address} is wanted, but it lies in no block of pool {names}")


def asked_twice(one: HostAddress, other: HostAddress) -> Refused:
    """Both are of one prefix."""
    return Refused(
        Code.INVALID_REQUEST,
        f"{one} and {other} are wanted, but both are of one prefix, which a VM gets whole; ask for one of them",
    )


def hindered(address: HostAddress, pool: PoolStock, withheld: Withheld) -> Refused:
    """The pool has it, and gives it to nobody."""
    why = hindrance(address, pool.spec, withheld)
    return Refused(Code.ADDRESS_EXCLUDED, f"{address} is wanted, but {why}; choose another")


def of_another_node(address: HostAddress, node: NodeName, pool: PoolStock) -> Refused:
    """It is in the range of another node."""
    owner = node_of(address, pool.spec)
    return Refused(
        Code.ADDRESS_EXCLUDED,
        f"{address} is wanted by a VM on node {node}, but in pool {pool.spec.name} it is for VMs on node {owner}; "
        f"choose one of the range of {node}, or ask for node {owner}",
    )


def quarantined(address: HostAddress, until: datetime) -> Refused:
    """It rests."""
    return Refused(
        Code.ADDRESS_QUARANTINED,
        f"{address} is wanted, but it was released a short while ago and rests until "
        f"{until.isoformat(timespec='seconds')}; ask again then, or choose another",
    )


def taken(address: HostAddress, reservation: Reservation | None) -> Refused:
    """Somebody else has it, or it is kept for somebody else."""
    found = "it is taken" if reservation is None else f"it is reserved for {reservation.owner}"
    return Refused(
        Code.ADDRESS_TAKEN,
        f"{address} is wanted, but {found}; ip.explain says more, or choose another",
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
