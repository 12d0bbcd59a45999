"""How full a pool is, and for how long it will do."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network

from vmfabric.contract.addresses import Family, Prefix
from vmfabric.contract.addressing import FamilyUsage, Trend
from vmfabric.contract.names import ResourceName
from vmfabric.ipam.domain.allocation import Range
from vmfabric.ipam.domain.pool_stock import PoolStock

DAY = timedelta(days=1)
WEEK = timedelta(days=7)

NetAllocated = Mapping[tuple[ResourceName, Family], int]
"""Addresses given to VMs in some time, less those that VMs gave back."""


def usage(
    pool: PoolStock, family: Family, last_day: NetAllocated, last_week: NetAllocated, now: datetime
) -> FamilyUsage:
    """All that is known of one family of a pool."""
    free = pool.free(family)
    blocks = [block for block in pool.spec.blocks if Family.of(block) is family]
    key = (pool.spec.name, family)
    return FamilyUsage(
        free=free,
        used=pool.held(family),
        quarantined=pool.resting(family),
        reserved=pool.reserved(family),
        excluded=sum(block.num_addresses for block in blocks) - pool.total(family),
        largest_free_block=largest_block(pool.free_ranges(family), family),
        last_day=trend(last_day.get(key, 0), DAY, free, now),
        last_week=trend(last_week.get(key, 0), WEEK, free, now),
    )


def trend(net_allocated: int, over: timedelta, free: int, now: datetime) -> Trend:
    """When `free` addresses are gone, if so many go in every `over`."""
    if net_allocated <= 0:
        return Trend(net_allocated=net_allocated)
    try:
        runs_out_at = now + over * free / net_allocated
    except OverflowError:
        return Trend(net_allocated=net_allocated)
    return Trend(net_allocated=net_allocated, runs_out_at=runs_out_at)


def largest_block(free: Iterable[Range], family: Family) -> Prefix | None:
    """The largest prefix that lies in these addresses, which ascend; the lowest of several."""
    best: tuple[int, int] | None = None
    for each in _joined(free):
        start, bits = _largest_in(each)
        if best is None or bits > best[1]:
            best = (start, bits)
    if best is None:
        return None
    start, bits = best
    network = IPv4Network if family is Family.IPV4 else IPv6Network
    return network((start, family.host_length - bits))


def _joined(ranges: Iterable[Range]) -> Iterator[Range]:
    """Without those that touch."""
    current: Range | None = None
    for each in ranges:
        if current is not None and each.first == current.last + 1:
            current = Range(current.first, each.last)
            continue
        if current is not None:
            yield current
        current = each
    if current is not None:
        yield current


def _largest_in(each: Range) -> tuple[int, int]:
    """The first address of the largest aligned block in a range, and how many of its bits are free."""
    bits = (each.last - each.first + 1).bit_length() - 1
    while True:
        start = -(-each.first >> bits) << bits
        if start + (1 << bits) - 1 <= each.last:
            return start, bits
        bits -= 1
