"""What networks may be, and which one an address lies in."""

import json
from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipam_specs import a_container, a_network, a_pool, by_name
from pydantic import ValidationError

from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.pool import NetworkKind, NetworkSpec
from vmfabric.ipam.domain.keeping import check_blocks_kept
from vmfabric.ipam.domain.networks import ActiveNetworks, check_network, surrounding
from vmfabric.ipam.domain.special import check_usable


def test_active_networks_do_not_overlap() -> None:
    with pytest.raises(Refused, match=r"overlaps network net \(10.0.0.0/8\)") as refused:
        check_network(a_network("10.1.0.0/16", "other"), {"net": a_network()})
    assert refused.value.code is Code.OVERLAP
    check_network(a_network("2001:db8::/32", "other"), {"net": a_network()})


def test_containers_nest_and_hold_active_networks() -> None:
    networks = {"all": a_container("10.0.0.0/8"), "some": a_container("10.1.0.0/16", "some")}
    check_network(a_container("10.1.2.0/24", "few"), networks)
    check_network(a_network("10.1.0.0/16"), networks)
    check_network(a_container("0.0.0.0/0", "world"), networks)


@pytest.mark.parametrize(
    ("new", "there", "sentence"),
    [
        (a_container("10.0.0.0/8", "again"), a_container("10.0.0.0/8"), "which container all is already"),
        (a_container("10.1.0.0/16"), a_network("10.0.0.0/8"), "lies inside of active network net"),
        (a_network("10.0.0.0/8"), a_container("10.1.0.0/16"), "container all (10.1.0.0/16) would lie inside of it"),
    ],
)
def test_what_does_not_nest_is_refused(new: NetworkSpec, there: NetworkSpec, sentence: str) -> None:
    with pytest.raises(Refused) as refused:
        check_network(new, {there.name: there})
    assert sentence in refused.value.sentence
    assert refused.value.code is Code.OVERLAP


@pytest.mark.parametrize(
    ("prefix", "what"),
    [
        ("224.0.0.0/24", "lies in 224.0.0.0/4 (multicast)"),
        ("127.0.0.0/8", "lies in 127.0.0.0/8 (loopback)"),
        ("0.0.0.0/8", "lies in 0.0.0.0/8 (of a host that has no address yet)"),
        ("169.254.0.0/16", "lies in 169.254.0.0/16 (link-local)"),
        ("160.0.0.0/4", "contains 169.254.0.0/16 (link-local)"),
        ("0.0.0.0/0", "contains 0.0.0.0/8"),
        ("ff00::/8", "lies in ff00::/8 (multicast)"),
        ("fe80::/10", "lies in fe80::/10 (link-local)"),
        ("fe80::/64", "lies in fe80::/10 (link-local)"),
        ("::1/128", "lies in ::1/128 (loopback)"),
        ("::/64", "contains ::/128"),
    ],
)
def test_a_network_in_which_no_vm_could_be_reached_is_refused(prefix: str, what: str) -> None:
    with pytest.raises(Refused) as refused:
        check_usable(a_network(prefix))
    assert refused.value.code is Code.INVALID_REQUEST
    assert refused.value.sentence.startswith(f"network net would be {prefix}, which {what}")


def test_a_container_may_hold_all_there_is_but_not_only_what_no_vm_can_have() -> None:
    check_usable(a_container("0.0.0.0/0"))
    check_usable(a_container("::/0"))
    with pytest.raises(Refused, match="lies in fe80::/10"):
        check_usable(a_container("fe80::/64"))


@pytest.mark.parametrize("prefix", ["10.0.0.0/8", "192.0.2.0/24", "100.64.0.0/10", "fd00::/8", "2000::/3"])
def test_other_networks_are_taken(prefix: str) -> None:
    check_usable(a_network(prefix))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"gateway": "192.0.2.1"}, "gateway 192.0.2.1 does not lie in 10.0.0.0/8"),
        ({"gateway": "fe80::1"}, "does not lie in"),
        ({"kind": "container", "vlan": 7}, "a container has no gateway and no VLAN"),
        ({"kind": "container", "segment": True}, "is no segment"),
        ({"vlan": 4095}, "less than or equal to 4094"),
    ],
)
def test_a_gateway_and_a_vlan_belong_to_an_active_network(fields: dict[str, object], complaint: str) -> None:
    body = {"name": "net", "prefix": "10.0.0.0/8", **fields}
    with pytest.raises(ValidationError, match=complaint):
        NetworkSpec.model_validate_json(json.dumps(body))


def test_a_network_does_not_shrink_below_its_blocks_and_becomes_no_container_of_them() -> None:
    old, pools = a_network(), by_name(a_pool("10.1.0.0/24"))
    check_blocks_kept(old, a_network("10.1.0.0/16"), pools)
    for new in (a_network("10.2.0.0/16"), a_container("10.0.0.0/8", "net")):
        with pytest.raises(Refused, match=r"10.1.0.0/24 of pool web") as refused:
            check_blocks_kept(old, new, pools)
        assert refused.value.code is Code.IN_USE


@given(st.sets(st.integers(0, 255), max_size=12), st.integers(0, 255), st.integers(0, 255))
def test_an_address_is_found_in_the_network_around_it(octets: set[int], octet: int, host: int) -> None:
    networks = [a_network(f"10.0.{each}.0/25", f"net{each}") for each in octets]
    address = IPv4Address(f"10.0.{octet}.{host}")
    found = ActiveNetworks(networks).around(address)
    assert found == next((each for each in networks if address in each.prefix), None)


def test_the_active_network_counts_before_the_containers_and_the_smallest_of_these_first() -> None:
    networks = {
        "all": a_container("10.0.0.0/8"),
        "some": a_container("10.1.0.0/16", "some"),
        "net": a_network("10.1.0.0/16"),
    }
    assert surrounding(ip_address("10.1.0.1"), networks) == networks["net"]
    del networks["net"]
    assert surrounding(ip_address("10.1.0.1"), networks) == networks["some"]
    assert surrounding(ip_address("192.0.2.1"), networks) is None


def test_only_active_networks_have_a_kind_that_blocks_are_cut_from() -> None:
    active = ActiveNetworks([a_container("10.0.0.0/8"), a_network("10.1.0.0/16", gateway="10.1.0.1")])
    assert active.around(ip_address("10.2.0.1")) is None
    assert active.withheld.keys() == {ip_address(f"10.1.{end}") for end in ("0.0", "0.1", "255.255")}
    assert NetworkSpec(name="net", prefix=ip_network("10.0.0.0/8")).kind is NetworkKind.ACTIVE


@pytest.mark.parametrize(
    ("prefix", "ends"),
    [
        ("10.0.0.0/29", {"10.0.0.0": "the address of network", "10.0.0.7": "the broadcast address"}),
        ("2001:db8::/64", {"2001:db8::": "the address of network"}),
        ("10.0.0.0/31", {}),
        ("10.0.0.0/32", {}),
    ],
)
def test_the_ends_of_a_segment_are_no_hosts(prefix: str, ends: dict[str, str]) -> None:
    network = a_network(prefix)
    assert ActiveNetworks([network]).withheld == {}
    withheld = ActiveNetworks([network.model_copy(update={"segment": True})]).withheld
    assert {str(address) for address in withheld} == set(ends)
    assert all(ends[str(address)] in why for address, why in withheld.items())
