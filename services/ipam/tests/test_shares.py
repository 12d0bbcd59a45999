"""What a pool may give, and to whom."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from ipam_specs import a_pool

from vmfabric.contract.addresses import Family
from vmfabric.contract.pool import PoolSpec
from vmfabric.ipam.domain.shares import Share, Shares


def given_by(pool: PoolSpec, *gateways: str) -> dict[Share, set[IPv4Address]]:
    shares = Shares(pool, Family.IPV4, [ip_address(gateway) for gateway in gateways])
    return {
        share: {IPv4Address(number) for each in ranges for number in range(each.first, each.last + 1)}
        for share, ranges in shares.ranges.items()
    }


def test_blocks_that_touch_are_one_range_and_exclusions_are_holes_in_it() -> None:
    pool = a_pool("10.0.1.0/24", "10.0.0.0/24", "2001:db8::/64", exclude=("10.0.0.0/31", "10.0.1.255/32"))
    (four,) = Shares(pool, Family.IPV4, ()).ranges[None]
    assert (str(IPv4Address(four.first)), str(IPv4Address(four.last))) == ("10.0.0.2", "10.0.1.254")
    (six,) = Shares(pool, Family.IPV6, ()).ranges[None]
    assert six.last - six.first + 1 == 2**64


octets = st.lists(st.integers(0, 255), min_size=1, max_size=8, unique=True)
hosts = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 15)), max_size=8)


@given(octets, hosts, hosts)
def test_every_address_of_a_block_that_is_not_excluded_and_no_gateway_may_be_given(
    octets: list[int], excluded: list[tuple[int, int]], routers: list[tuple[int, int]]
) -> None:
    blocks = [f"10.0.{octet}.0/28" for octet in octets]
    exclude = tuple(f"10.0.{octets[index % len(octets)]}.{host}/32" for index, host in excluded)
    gateways = [f"10.0.{octets[index % len(octets)]}.{host}" for index, host in routers]
    wanted = {address for block in blocks for address in IPv4Network(block)}
    wanted -= {ip_network(each).network_address for each in exclude} | {ip_address(each) for each in gateways}
    assert given_by(a_pool(*blocks, exclude=exclude), *gateways) == {None: wanted}


bounds = st.lists(st.integers(0, 255), min_size=2, max_size=12, unique=True).map(sorted)


@given(bounds, st.sets(st.integers(0, 255), max_size=12))
def test_each_node_has_what_its_ranges_have_without_what_is_excluded(bounds: list[int], excluded: set[int]) -> None:
    pairs = list(zip(bounds[::2], bounds[1::2], strict=False))
    own = {f"n{index}": f"10.0.0.{first}-10.0.0.{last}" for index, (first, last) in enumerate(pairs)}
    pool = a_pool("10.0.0.0/24", exclude=tuple(f"10.0.0.{host}/32" for host in sorted(excluded)), ranges=own)
    wanted: dict[Share, set[IPv4Address]] = {
        f"n{index}": {IPv4Address(f"10.0.0.{host}") for host in range(first, last + 1) if host not in excluded}
        for index, (first, last) in enumerate(pairs)
    }
    assert given_by(pool) == wanted
    shares = Shares(pool, Family.IPV4, ())
    for number in range(int(IPv4Address("10.0.0.0")), int(IPv4Address("10.0.1.0"))):
        home = next((share for share, addresses in wanted.items() if IPv4Address(number) in addresses), None)
        assert shares.holds(IPv4Address(number)) == (home is not None)
        assert home is None or shares.share_with(IPv4Address(number)) == home


LENGTH, BLOCK = 125, IPv6Network("2001:db8::/121")
inside = st.integers(0, BLOCK.num_addresses - 1).map(lambda number: BLOCK[number])


@given(st.sets(inside, max_size=6))
def test_a_prefix_is_given_whole_or_not_at_all(excluded: set[IPv6Address]) -> None:
    pool = a_pool(str(BLOCK), exclude=tuple(f"{address}/128" for address in excluded), ipv6_length=LENGTH)
    shares = Shares(pool, Family.IPV6, ())
    numbers = [number for each in shares.ranges[None] for number in range(each.first, each.last + 1)]
    wanted = [each for each in BLOCK.subnets(new_prefix=LENGTH) if not any(address in each for address in excluded)]
    assert [shares.units.prefix_of(number) for number in numbers] == wanted
    assert [shares.units.address_of(number) for number in numbers] == [each.network_address + 1 for each in wanted]
    for address in BLOCK:
        assert shares.holds(address) == any(address in each for each in wanted)


@given(inside, inside, inside)
def test_a_range_of_prefixes_is_from_the_one_of_its_first_to_the_one_of_its_last(
    one: IPv6Address, another: IPv6Address, somewhere: IPv6Address
) -> None:
    first, last = sorted((one, another))
    shares = Shares(a_pool(str(BLOCK), ranges={"n1": f"{first}-{last}"}, ipv6_length=LENGTH), Family.IPV6, ())
    wanted = int(first) >> 3 <= int(somewhere) >> 3 <= int(last) >> 3
    assert shares.holds(somewhere) == wanted
    assert not wanted or shares.share_with(somewhere) == "n1"
