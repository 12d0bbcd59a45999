"""How full a pool is, and for how long it will do."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from vmfabric.contract.addresses import Family, Prefix
from vmfabric.contract.addressing import FamilyUsage, Trend
from vmfabric.contract.names import ResourceName
from vmfabric.ipam.domain.allocation import Range
from vmfabric.ipam.domain.pool_stock import PoolStock
from vmfabric.ipam.domain.units import Units

DAY = timedelta(days=1)
WEEK = timedelta(days=7)

_ENOUGH = timedelta(hours=1)
"""From less than this nothing follows."""


@dataclass(frozen=True, slots=True)
class Flow:
    """What VMs took of one family of a pool, less what they gave back."""

    net: int
    since: datetime
    """From when it counts: the beginning of the time that was asked for, or of what is known if that is later."""


NetAllocated = Mapping[tuple[ResourceName, Family], Flow]
"""Nothing is known of those that are missing."""


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
        excluded=sum(block.num_addresses >> pool.units(family).bits for block in blocks) - pool.total(family),
        largest_free_block=largest_block(pool.free_ranges(family), pool.units(family)),
        last_day=trend(last_day.get(key), free, now),
        last_week=trend(last_week.get(key), free, now),
    )


def trend(flow: Flow | None, free: int, now: datetime) -> Trend:
    """When `free` addresses are gone, if it goes on so."""
    net, since = (flow.net, flow.since) if flow is not None else (0, None)
    return Trend(net_allocated=net, since=since, runs_out_at=now if free == 0 else _runs_out_at(flow, free, now))


def _runs_out_at(flow: Flow | None, free: int, now: datetime) -> datetime | None:
    if flow is None or flow.net <= 0 or now - flow.since < _ENOUGH:
        return None
    try:
        return now + (now - flow.since) * free / flow.net
    except OverflowError:
        return None


def largest_block(free: Iterable[Range], units: Units) -> Prefix | None:
    """The largest prefix of these numbers of units, which ascend; the lowest of several."""
    best: tuple[int, int] | None = None
    for each in _joined(free):
        start, bits = _largest_in(each)
        if best is None or bits > best[1]:
            best = (start, bits)
    return None if best is None else units.prefix_of(*best)


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
