"""How full pools are, and for how long they will do."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Network, ip_network

from hypothesis import given
from hypothesis import strategies as st

from vmfabric.contract.addresses import Family
from vmfabric.contract.addressing import Trend
from vmfabric.ipam.domain.allocation import Allocator, Range
from vmfabric.ipam.domain.units import Units
from vmfabric.ipam.domain.usage import DAY, WEEK, Flow, largest_block, trend

NOW = datetime(2030, 1, 1, tzinfo=UTC)
BASE = int(IPv4Address("10.0.0.0"))


def by_hand(free: set[int]) -> str | None:
    """Every aligned block of 10.0.0.0/26, the larger and lower ones first."""
    for bits in range(6, -1, -1):
        for start in range(0, 64, 1 << bits):
            if free.issuperset(range(start, start + (1 << bits))):
                return f"10.0.0.{start}/{32 - bits}"
    return None


def ranges(free: Iterable[int]) -> list[Range]:
    return [Range(BASE + number, BASE + number) for number in sorted(free)]


@given(st.sets(st.integers(0, 63)))
def test_the_largest_free_block_is_the_lowest_of_the_largest_aligned_ones(free: set[int]) -> None:
    wanted = by_hand(free)
    assert largest_block(ranges(free), Units(Family.IPV4)) == (ip_network(wanted) if wanted else None)


@given(st.lists(st.integers(0, 63), max_size=60), st.sets(st.integers(0, 63), max_size=5))
def test_holes_and_what_was_chosen_ahead_bound_the_largest_free_block(back: list[int], chosen: set[int]) -> None:
    allocator = Allocator([Range(BASE, BASE + 63)])
    taken = {BASE + number for number in chosen if allocator.take(BASE + number)}
    taken |= {number for _ in range(30) if (number := allocator.take_lowest()) is not None}
    for number in {*back}:
        if BASE + number in taken:
            allocator.give_back(BASE + number)
            taken.remove(BASE + number)
    wanted = by_hand({number for number in range(64) if BASE + number not in taken})
    assert largest_block(allocator.free_ranges(), Units(Family.IPV4)) == (ip_network(wanted) if wanted else None)


def test_a_64_of_which_one_address_is_taken_has_a_free_65() -> None:
    first = int(IPv6Network("2001:db8::/64").network_address)
    allocator = Allocator([Range(first, first + 2**64 - 1)])
    assert largest_block(allocator.free_ranges(), Units(Family.IPV6)) == IPv6Network("2001:db8::/64")
    allocator.take_lowest()
    assert largest_block(allocator.free_ranges(), Units(Family.IPV6)) == IPv6Network("2001:db8:0:0:8000::/65")


def test_of_whole_prefixes_the_largest_free_block_is_counted_in_addresses() -> None:
    units = Units(Family.IPV6, 64)
    first = units.number_of(IPv6Network("2001:db8::/48").network_address)
    assert largest_block([Range(first + 1, first + 7)], units) == IPv6Network("2001:db8:0:4::/62")


def flow(net: int, over: timedelta) -> Flow:
    return Flow(net, NOW - over)


def test_a_pool_runs_out_when_its_free_addresses_are_gone_at_the_rate_of_that_time() -> None:
    assert trend(flow(10, DAY), 25, NOW).runs_out_at == NOW + timedelta(days=2.5)
    assert trend(flow(14, WEEK), 28, NOW).runs_out_at == NOW + timedelta(days=14)
    assert trend(flow(10, timedelta(hours=2)), 25, NOW).runs_out_at == NOW + timedelta(hours=5)


def test_a_pool_that_has_nothing_left_has_run_out_whatever_was_before() -> None:
    assert trend(flow(1, DAY), 0, NOW).runs_out_at == NOW
    assert trend(flow(-3, DAY), 0, NOW).runs_out_at == NOW
    assert trend(None, 0, NOW) == Trend(net_allocated=0, runs_out_at=NOW)


def test_a_pool_that_does_not_lose_addresses_or_has_too_many_to_lose_never_runs_out() -> None:
    assert trend(flow(0, DAY), 25, NOW).runs_out_at is None
    assert trend(flow(-3, DAY), 25, NOW).runs_out_at is None
    assert trend(flow(1, DAY), 2**96, NOW).runs_out_at is None


def test_from_a_few_minutes_nothing_follows() -> None:
    assert trend(flow(10, timedelta(minutes=59)), 25, NOW) == Trend(
        net_allocated=10, since=NOW - timedelta(minutes=59)
    )
