"""What networks and pools may be."""

from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmfabric.contract.addresses import Family, Prefix
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.pool import NetworkSpec, PoolSpec
from vmfabric.ipam.domain.pools import check_kept, check_network, check_pool, desired_pools, place, usable


def a_network(prefix: str = "10.0.0.0/8", name: str = "net") -> NetworkSpec:
    return NetworkSpec(name=name, prefix=ip_network(prefix))


def a_pool(*blocks: str, name: str = "web", cluster: str = "msk", exclude: tuple[str, ...] = ()) -> PoolSpec:
    return PoolSpec(name=name, cluster=cluster, blocks=prefixes(*blocks), exclude=prefixes(*exclude))


def prefixes(*texts: str) -> tuple[Prefix, ...]:
    return tuple(ip_network(text) for text in texts)


def by_name(*specs: PoolSpec) -> dict[str, PoolSpec]:
    return {spec.name: spec for spec in specs}


def test_blocks_that_touch_are_one_range_and_exclusions_are_holes_in_it() -> None:
    pool = a_pool("10.0.1.0/24", "10.0.0.0/24", "2001:db8::/64", exclude=("10.0.0.0/31", "10.0.1.255/32"))
    assert [(str(IPv4Address(each.first)), str(IPv4Address(each.last))) for each in usable(pool, Family.IPV4)] == [
        ("10.0.0.2", "10.0.1.254")
    ]
    assert [each.last - each.first + 1 for each in usable(pool, Family.IPV6)] == [2**64]


@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=8, unique=True),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 255)), max_size=8),
)
def test_usable_is_every_address_of_a_block_that_is_not_excluded(
    octets: list[int], excluded: list[tuple[int, int]]
) -> None:
    blocks = [f"10.0.{octet}.0/28" for octet in octets]
    exclude = tuple(f"10.0.{octets[index % len(octets)]}.{host % 16}/32" for index, host in excluded)
    pool = a_pool(*blocks, exclude=exclude)
    wanted = {address for block in blocks for address in IPv4Network(block)}
    wanted -= {ip_network(each).network_address for each in exclude}
    found = [IPv4Address(number) for each in usable(pool, Family.IPV4) for number in range(each.first, each.last + 1)]
    assert found == sorted(wanted)


def test_networks_do_not_overlap() -> None:
    with pytest.raises(Refused, match=r"overlaps network net \(10.0.0.0/8\)") as refused:
        check_network(a_network("10.1.0.0/16", "other"), {"net": a_network()}, {})
    assert refused.value.code is Code.OVERLAP
    check_network(a_network("2001:db8::/32", "other"), {"net": a_network()}, {})


def test_a_network_does_not_shrink_below_its_blocks() -> None:
    networks, pools = {"net": a_network()}, by_name(a_pool("10.1.0.0/24"))
    check_network(a_network("10.1.0.0/16"), networks, pools)
    with pytest.raises(Refused, match=r"10.1.0.0/24 of pool web lies outside") as refused:
        check_network(a_network("10.2.0.0/16"), networks, pools)
    assert refused.value.code is Code.IN_USE


def test_a_block_lies_in_a_network() -> None:
    with pytest.raises(Refused, match="192.0.2.0/24 of pool web lies in no network") as refused:
        check_pool(a_pool("192.0.2.0/24"), {"net": a_network()}, {})
    assert refused.value.code is Code.UNKNOWN_NETWORK


def test_blocks_of_two_pools_do_not_overlap() -> None:
    other = a_pool("10.0.0.0/16", name="other", cluster="spb")
    with pytest.raises(Refused, match=r"10.0.3.0/24 of pool web overlaps block 10.0.0.0/16 of pool other") as refused:
        check_pool(a_pool("10.0.3.0/24"), {"net": a_network()}, by_name(other))
    assert refused.value.code is Code.OVERLAP


def test_a_pool_may_be_applied_again_over_itself() -> None:
    check_pool(a_pool("10.0.0.0/23"), {"net": a_network()}, by_name(a_pool("10.0.0.0/24")))


def test_a_pool_does_not_shrink_below_what_is_in_use_and_says_which_addresses_are() -> None:
    old, new = a_pool("10.0.0.0/24"), a_pool("10.0.0.0/29")
    in_use = [ip_address(f"10.0.0.{host}") for host in (1, 20, 9, 8, 30, 31, 32)]
    with pytest.raises(
        Refused, match=r"10.0.0.8, 10.0.0.9, 10.0.0.20, 10.0.0.30, 10.0.0.31 and 1 more are"
    ) as refused:
        check_kept(old, new, in_use)
    assert refused.value.code is Code.IN_USE
    check_kept(old, new, in_use[:1])


def test_an_address_in_use_cannot_be_excluded() -> None:
    with pytest.raises(Refused, match="10.0.0.7 is in use and would lie outside"):
        check_kept(a_pool("10.0.0.0/24"), a_pool("10.0.0.0/24", exclude=("10.0.0.0/29",)), [ip_address("10.0.0.7")])


def test_a_pool_in_use_stays_in_its_cluster() -> None:
    old, new = a_pool("10.0.0.0/24"), a_pool("10.0.0.0/24", cluster="spb")
    check_kept(old, new, [])
    with pytest.raises(Refused, match="from cluster msk to spb while 10.0.0.7 is in use"):
        check_kept(old, new, [ip_address("10.0.0.7")])


def test_desired_pools_are_all_blocks_of_the_cluster_in_a_fixed_order() -> None:
    first, second = a_pool("2001:db8::/64", "10.1.0.0/24"), a_pool("10.0.0.0/24", name="db")
    stranger = a_pool("10.2.0.0/24", name="spb", cluster="spb")
    wanted = (IPv4Network("10.0.0.0/24"), IPv4Network("10.1.0.0/24"), IPv6Network("2001:db8::/64"))
    assert desired_pools("msk", by_name(first, second, stranger)).prefixes == wanted
    assert desired_pools("msk", by_name(stranger, second, first)).prefixes == wanted


def test_an_address_is_placed_in_its_network_and_pool() -> None:
    networks, pools = {"net": a_network()}, by_name(a_pool("10.0.0.0/24", exclude=("10.0.0.1/32",)))
    assert place(ip_address("10.0.0.1"), networks, pools).excluded
    assert place(ip_address("10.0.0.2"), networks, pools).pool == pools["web"]
    assert place(ip_address("10.1.0.2"), networks, pools).pool is None
    assert place(ip_address("192.0.2.1"), networks, pools).network is None
