"""What a change of networks and pools must not strand."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import NamedTuple

from vmfabric.contract.addresses import Family, HostAddress, lies_inside
from vmfabric.contract.addressing import Reservation
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.names import NodeName, ResourceName, VmName
from vmfabric.contract.pool import NetworkKind, NetworkSpec, PoolSpec
from vmfabric.ipam.domain.naming import named
from vmfabric.ipam.domain.pools import Pools
from vmfabric.ipam.domain.shares import Shares


class InUse(NamedTuple):
    """An address that cannot be given now."""

    address: HostAddress
    pool: ResourceName
    vm: VmName
    node: NodeName
    rests_until: datetime | None
    """None when the VM holds it."""


class _Claim(NamedTuple):
    """Something that is in the way."""

    address: HostAddress
    of: str
    node: NodeName | None
    """Whose range it must stay in; None when any will do."""

    def __str__(self) -> str:
        return f"{self.address} ({self.of})"


def check_blocks_kept(old: NetworkSpec, new: NetworkSpec, pools: Pools) -> None:
    """Refused when a block of a pool would lie in no active network any more."""
    stranded = [
        f"{block} of pool {pool.name}"
        for pool in pools.values()
        for block in pool.blocks
        if lies_inside(block, old.prefix)
        and (new.kind is NetworkKind.CONTAINER or not lies_inside(block, new.prefix))
    ]
    if old.kind is NetworkKind.ACTIVE and stranded:
        would = f"a container, {new.prefix}" if new.kind is NetworkKind.CONTAINER else str(new.prefix)
        raise Refused(
            Code.IN_USE,
            f"network {new.name} would be {would}, but blocks are cut from it that would lie outside: "
            f"{named(stranded)}; take them out of their pools first",
        )


def check_kept(
    what: str,
    old: PoolSpec,
    new: PoolSpec,
    withheld: Collection[HostAddress],
    in_use: Iterable[InUse],
    *,
    reservations: Iterable[Reservation] = (),
) -> None:
    """Refused when an address that is held, rests or is reserved would no longer be the pool's to give.

    `what` is what changes.
    """
    found = _claims(in_use, reservations)
    if found and old.cluster != new.cluster:
        raise Refused(
            Code.IN_USE,
            f"{what} cannot go from cluster {old.cluster} to {new.cluster} while addresses are in use: "
            f"{named(found)}; delete the VMs, wait for the quarantine, and release what is reserved first",
        )
    if old.ipv6_length != new.ipv6_length and (of_ipv6 := [each for each in found if each.address.version == 6]):
        raise Refused(
            Code.IN_USE,
            f"{what} cannot give a /{new.ipv6_length} instead of a /{old.ipv6_length} while IPv6 addresses of it are "
            f"in use: {named(of_ipv6)}; make another pool for that",
        )
    before = {family: Shares(old, family, ()) for family in Family}
    after = {family: Shares(new, family, withheld) for family in Family}
    stranded = [
        each for each in found if not _is_kept(each, before[Family.of(each.address)], after[Family.of(each.address)])
    ]
    if stranded:
        raise Refused(
            Code.IN_USE,
            f"{what} cannot change so: addresses are in use that would be excluded, a gateway or the end of a "
            "segment, or lie outside the blocks or the ranges of their node: "
            f"{named(stranded)}; ip.explain says more of each",
        )


def check_unused(pool: PoolSpec, in_use: Iterable[InUse], reservations: Iterable[Reservation]) -> None:
    """Refused when an address of the pool is held, rests or is reserved."""
    if found := _claims(in_use, reservations):
        raise Refused(
            Code.IN_USE,
            f"pool {pool.name} cannot be deleted while addresses of it are in use: {named(found)}; delete the VMs, "
            "wait for the quarantine, and release what is reserved first",
        )


def check_uncut(network: NetworkSpec, pools: Pools) -> None:
    """Refused when a block of a pool lies in the network. What a container holds does not need it."""
    blocks = [
        f"{block} of pool {pool.name}"
        for pool in pools.values()
        for block in pool.blocks
        if lies_inside(block, network.prefix)
    ]
    if network.kind is NetworkKind.ACTIVE and blocks:
        raise Refused(
            Code.IN_USE,
            f"network {network.name} cannot be deleted while blocks are cut from it: {named(blocks)}; delete these "
            "pools, or take the blocks out of them, first",
        )


def _claims(in_use: Iterable[InUse], reservations: Iterable[Reservation]) -> list[_Claim]:
    claims = {each.address: _Claim(each.address, f"reserved for {each.owner}", each.node) for each in reservations}
    for each in in_use:
        kept = claims.get(each.address)
        if each.rests_until is None:
            claims[each.address] = _Claim(each.address, each.vm, each.node)
        elif kept is None or kept.node is None:
            claims[each.address] = _Claim(each.address, f"{each.vm}, resting", None)
    return sorted(claims.values(), key=lambda claim: (claim.address.version, int(claim.address)))


def _is_kept(claim: _Claim, before: Shares, after: Shares) -> bool:
    if not after.holds(claim.address):
        return False
    share = after.share_with(claim.address)
    stays = before.holds(claim.address) and share == before.share_with(claim.address)
    return claim.node is None or share in {None, claim.node} or stays
