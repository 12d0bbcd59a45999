"""How a VM is connected in each type of cluster, and which addresses it cannot have there."""

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from vmfabric.contract.cluster import Bridge, ClusterSpec, Gateway, NetworkType, NodeSpec, Upstream
from vmfabric.contract.desired import Routed, Switched
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.ip import AllocatedAddress
from vmfabric.scheduler.domain.wiring import Surroundings, connect

from .builders import a_cluster_spec, a_node_spec, another_type

SWITCHING = another_type(NetworkType.SWITCHING, bridge=Bridge(name="vmbr7"))
ROUTING = another_type(NetworkType.ROUTING)
A_FABRIC = a_cluster_spec()
SIX = ip_interface("2001:db8:1::2/64")


def an_address(address: str, **fields: Any) -> AllocatedAddress:
    return AllocatedAddress(address=ip_address(address), pool="web", **fields)


def of_rack(address: str, *, vlan: int | None = None, prefix: str = "203.0.113.0/24") -> AllocatedAddress:
    return an_address(address, network=ip_network(prefix), gateway=ip_address("203.0.113.1"), vlan=vlan)


def a_routing_node(**fields: Any) -> NodeSpec:
    return a_node_spec(uplink="eth0", **{"subnets": (ip_network("203.0.113.8/29"),), **fields})


def refused_there(*allocated: AllocatedAddress, around: Surroundings) -> str:
    cluster = SWITCHING if around.node is None else ROUTING
    with pytest.raises(Refused) as refused:
        connect(cluster, around, allocated)
    assert refused.value.code is Code.CONFLICT
    return refused.value.sentence


def test_a_switched_vm_is_in_its_physical_network_with_that_networks_gateway() -> None:
    made = connect(SWITCHING, Surroundings(), [of_rack("203.0.113.9")])
    assert made.wiring == Switched(bridge="vmbr7")
    [guest] = made.guest_addresses
    assert (str(guest.prefix), str(guest.gateway)) == ("203.0.113.9/24", "203.0.113.1")


def test_a_switched_vm_is_in_the_vlan_of_its_networks() -> None:
    six = of_rack("2001:db8:1::9", vlan=7, prefix="2001:db8:1::/64")
    made = connect(SWITCHING, Surroundings(), [of_rack("203.0.113.9", vlan=7), six])
    assert made.wiring == Switched(bridge="vmbr7", vlan=7)


@pytest.mark.parametrize(("vlan", "words"), [(8, "in VLAN 8"), (None, "in no VLAN")])
def test_a_vm_is_in_one_vlan_with_all_of_its_addresses(vlan: int | None, words: str) -> None:
    six = of_rack("2001:db8:1::9", vlan=vlan, prefix="2001:db8:1::/64")
    said = refused_there(of_rack("203.0.113.9", vlan=7), six, around=Surroundings())
    assert said.startswith("203.0.113.9 of pool web is in VLAN 7 and 2001:db8:1::9 of pool web is " + words)


@pytest.mark.parametrize("cluster", [A_FABRIC, ROUTING])
def test_where_nothing_is_tagged_the_vlan_of_a_network_says_nothing(cluster: ClusterSpec) -> None:
    around = Surroundings(a_routing_node())
    tagged, plain = of_rack("203.0.113.9", vlan=7), of_rack("203.0.113.9")
    assert connect(cluster, around, [tagged]) == connect(cluster, around, [plain])


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("203.0.113.0", "the address of network 203.0.113.0/24 itself"),
        ("203.0.113.255", "the broadcast address of network 203.0.113.0/24"),
        ("203.0.113.5", "the address of node n5"),
    ],
)
def test_what_is_no_guests_in_a_segment_is_no_vms(address: str, why: str) -> None:
    taken = Surroundings(taken={ip_address("203.0.113.5"): "n5"})
    said = refused_there(of_rack(address), around=taken)
    assert said.startswith(f"{address} of pool web is {why}, which no VM can have")


def test_both_addresses_of_a_link_are_guests() -> None:
    assert connect(SWITCHING, Surroundings(), [of_rack("203.0.113.0", prefix="203.0.113.0/31")])


def test_a_routed_vm_has_its_node_as_gateway_in_both_families() -> None:
    node = a_routing_node(ipv6=SIX)
    made = connect(ROUTING, Surroundings(node), [an_address("203.0.113.9"), an_address("2001:db8:1::9")])
    assert made.wiring == Routed(bridge="vmbr0")
    assert [(str(each.prefix), str(each.gateway)) for each in made.guest_addresses] == [
        ("203.0.113.9/32", "10.0.0.1"),
        ("2001:db8:1::9/128", "2001:db8:1::2"),
    ]


@pytest.mark.parametrize(
    ("address", "fields", "words"),
    [
        ("203.0.113.16", {}, "lies in no subnet of node n1"),
        ("2001:db8:1::9", {}, "node n1 has no `ipv6`"),
        ("2001:db8:1::2", {"ipv6": SIX}, "is node n1's own, its VMs' gateway"),
        ("2001:db8:2::9", {"ipv6": SIX}, "lies in no subnet of node n1"),
    ],
)
def test_what_the_provider_does_not_send_to_the_node_is_no_vms_there(
    address: str, fields: dict[str, Any], words: str
) -> None:
    assert words in refused_there(an_address(address), around=Surroundings(a_routing_node(**fields)))


def a_prefix(prefix: str) -> AllocatedAddress:
    whole = ip_network(prefix)
    return an_address(str(whole[1]), prefix=whole)


def test_a_guest_configures_its_address_with_the_length_of_its_prefix() -> None:
    cluster = a_cluster_spec()
    made = connect(cluster, Surroundings(), [a_prefix("2001:db8:7::/64")])
    [guest] = made.guest_addresses
    assert (str(guest.prefix), guest.gateway) == ("2001:db8:7::1/64", cluster.gateway.ipv6)


def test_the_gateway_of_an_ip_fabric_is_no_vms() -> None:
    cluster = a_cluster_spec().model_copy(update={"gateway": Gateway(ipv6=ip_address("2001:db8:7::77"))})
    for allocated in (a_prefix("2001:db8:7::/64"), an_address("2001:db8:7::77")):
        with pytest.raises(Refused, match="(is|has 2001:db8:7::77,) the gateway of the VMs of cluster"):
            connect(cluster, Surroundings(), [allocated])
    connect(cluster, Surroundings(), [a_prefix("2001:db8:8::/64"), an_address("2001:db8:7::78")])


def test_a_prefix_is_refused_where_nobody_would_route_all_of_it() -> None:
    prefix = a_prefix("2001:db8:7::/64")
    assert "ask for a pool of single addresses" in refused_there(prefix, around=Surroundings())
    subnets = (ip_network("2001:db8:7::/60"),)
    on_link = a_routing_node(ipv6=SIX, subnets=subnets, upstream=Upstream.ON_LINK)
    assert "asks for each address by itself" in refused_there(prefix, around=Surroundings(on_link))
    part = a_routing_node(ipv6=SIX, subnets=(ip_network("2001:db8:7::/80"),))
    assert "2001:db8:7::/64 of pool web lies in no subnet" in refused_there(prefix, around=Surroundings(part))
    around_gateway = a_routing_node(ipv6=ip_interface("2001:db8:7::2/64"))
    assert "has 2001:db8:7::2, node" in refused_there(prefix, around=Surroundings(around_gateway))
    made = connect(ROUTING, Surroundings(a_routing_node(ipv6=SIX, subnets=subnets)), [prefix])
    assert [str(guest.prefix) for guest in made.guest_addresses] == ["2001:db8:7::1/64"]
