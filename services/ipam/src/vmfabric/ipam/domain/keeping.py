"""What a change of networks and pools must not strand."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from vmfabric.contract.addresses import Family, HostAddress
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.names import NodeName, ResourceName, VmName
from vmfabric.contract.pool import NetworkKind, NetworkSpec, PoolSpec
from vmfabric.ipam.domain.networks import lies_inside
from vmfabric.ipam.domain.pools import Pools
from vmfabric.ipam.domain.shares import Shares

_NAMED = 20
"""So many things that are in the way are named in a refusal."""


class InUse(NamedTuple):
    """An address that cannot be given now."""

    address: HostAddress
    pool: ResourceName
    vm: VmName
    node: NodeName
    rests_until: datetime | None
    """None when the VM holds it."""

    def __str__(self) -> str:
        return f"{self.address} ({self.vm}{', resting' if self.rests_until else ''})"


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
            f"{_named(stranded)}; take them out of their pools first",
        )


def check_kept(
    what: str, old: PoolSpec, new: PoolSpec, gateways: Collection[HostAddress], in_use: Iterable[InUse]
) -> None:
    """Refused when an address that is held or rests would no longer be the pool's to give; `what` is what changes."""
    found = sorted(in_use, key=lambda each: (each.address.version, int(each.address)))
    if found and old.cluster != new.cluster:
        raise Refused(
            Code.IN_USE,
            f"{what} cannot go from cluster {old.cluster} to {new.cluster} while addresses are in use: "
            f"{_named(found)}; delete the VMs and wait for the quarantine first",
        )
    before = {family: Shares(old, family, ()) for family in Family}
    after = {family: Shares(new, family, gateways) for family in Family}
    stranded = [
        each for each in found if not _is_kept(each, before[Family.of(each.address)], after[Family.of(each.address)])
    ]
    if stranded:
        raise Refused(
            Code.IN_USE,
            f"{what} cannot change so: addresses are in use that would be excluded or a gateway, or lie outside the "
            f"blocks or the ranges of their node: {_named(stranded)}; ip.explain says more of each",
        )


def _is_kept(each: InUse, before: Shares, after: Shares) -> bool:
    number = int(each.address)
    if not after.holds(number):
        return False
    share = after.of(number)
    stays = before.holds(number) and share == before.of(number)
    return share in {None, each.node} or stays or each.rests_until is not None


def _named(things: Sequence[object]) -> str:
    named = ", ".join(str(thing) for thing in things[:_NAMED])
    more = len(things) - _NAMED
    return f"{named} and {more} more" if more > 0 else named
