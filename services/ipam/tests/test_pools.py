"""What pools may be, and where an address lies."""

from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest
from ipam_specs import a_container, a_network, a_pool, by_name
from pydantic import ValidationError

from vmfabric.contract.errors import Code, Refused
from vmfabric.ipam.domain.networks import ActiveNetworks
from vmfabric.ipam.domain.pools import check_pool, desired_pools, place


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


def test_a_block_is_cut_from_active_networks_only() -> None:
    with pytest.raises(Refused, match="10.1.0.0/24 of pool web lies only in container all"):
        check_pool(a_pool("10.1.0.0/24"), {"all": a_container("10.0.0.0/8")}, {})


@pytest.mark.parametrize(
    ("ranges", "complaint"),
    [
        ({"n1": "10.0.0.9-10.0.0.2"}, "10.0.0.9 comes after 10.0.0.2"),
        ({"n1": "10.0.0.9-2001:db8::1"}, "are of two families"),
        ({"n1": "10.0.0.250-10.0.1.2"}, "range 10.0.0.250 to 10.0.1.2 of node n1 lies in no block"),
        ({"n1": "10.0.0.2-10.0.0.9", "n2": "10.0.0.9-10.0.0.20"}, "ranges of n1 and n2 overlap at 10.0.0.9"),
        ({"n1": "10.0.0.2-10.0.0.30,10.0.0.4-10.0.0.5"}, "ranges of n1 and n1 overlap at 10.0.0.4"),
    ],
)
def test_ranges_lie_in_blocks_and_apart_from_each_other(ranges: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        a_pool("10.0.0.0/24", "2001:db8::/64", ranges=ranges)


def test_desired_pools_are_all_blocks_of_the_cluster_in_a_fixed_order() -> None:
    first, second = a_pool("2001:db8::/64", "10.1.0.0/24"), a_pool("10.0.0.0/24", name="db")
    stranger = a_pool("10.2.0.0/24", name="spb", cluster="spb")
    wanted = (IPv4Network("10.0.0.0/24"), IPv4Network("10.1.0.0/24"), IPv6Network("2001:db8::/64"))
    assert desired_pools("msk", by_name(first, second, stranger)).prefixes == wanted
    assert desired_pools("msk", by_name(stranger, second, first)).prefixes == wanted


def test_an_address_is_placed_in_its_network_pool_and_range() -> None:
    networks = {"net": a_network(gateway="10.0.0.1")}
    withheld = ActiveNetworks(networks.values()).withheld
    pools = by_name(
        a_pool("10.0.0.0/24", exclude=("10.0.0.0/32",)), a_pool("10.1.0.0/24", name="far", ranges={"n1": "10.1.0.7"})
    )

    def hindrance(address: str) -> str | None:
        return place(ip_address(address), networks, pools, withheld).hindrance

    assert place(ip_address("10.0.0.2"), networks, pools, withheld).pool == pools["web"]
    assert place(ip_address("192.0.2.1"), networks, pools, withheld).network is None
    assert place(ip_address("10.1.0.7"), networks, pools, withheld).node == "n1"
    assert [hindrance("10.0.0.2"), hindrance("10.1.0.7")] == [None, None]
    assert hindrance("10.0.0.0") == "pool web excludes it"
    assert hindrance("10.0.0.1") == "it is the gateway of its network"
    assert hindrance("10.1.0.8") == "it lies in no node's range of pool far"
    assert hindrance("10.2.0.8") == "it lies in no pool"
