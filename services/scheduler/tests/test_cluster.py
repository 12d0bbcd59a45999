"""What operators may apply to clusters and nodes of each type."""

from ipaddress import ip_interface, ip_network
from typing import Any

import pytest

from vmfabric.contract.cluster import Bridge, ClusterSpec, NetworkType, NodeSpec, Upstream
from vmfabric.contract.errors import Code, Refused
from vmfabric.scheduler.domain.cluster import check_cluster, check_node

from .builders import a_cluster_spec, a_node_spec, another_type

FABRIC = a_cluster_spec()
SWITCHING = another_type(NetworkType.SWITCHING)
OWN_BRIDGE = another_type(NetworkType.SWITCHING, bridge=Bridge(autosetup=False))
ROUTING = another_type(NetworkType.ROUTING)
SUBNET = ip_network("203.0.113.8/29")
SIX = ip_interface("2001:db8:1::2/64")


def a_routing_node(name: str = "n1", number: int = 1, **fields: Any) -> NodeSpec:
    return a_node_spec(name, number, **{"uplink": "eth0", "subnets": (SUBNET,), **fields})


def check(cluster: ClusterSpec, wanted: NodeSpec, *others: NodeSpec, found: NodeSpec | None = None) -> None:
    vms = 0 if found is None else 3
    check_node(wanted, found=found, cluster=cluster, others=others, heard=(), vms=vms, holder=None)


def test_the_whole_prefixes_of_a_routing_nodes_vms_keep_leading_to_them() -> None:
    found = a_node_spec(uplink="eth0", subnets=(ip_network("2001:db8:7::/60"),))

    def check_with(wanted: NodeSpec) -> None:
        check_node(
            wanted,
            found=found,
            cluster=ROUTING,
            others=(),
            heard=(),
            vms=1,
            delegated=[ip_network("2001:db8:7:1::/64")],
            holder=None,
        )

    check_with(found.model_copy(update={"ipv6": ip_interface("2001:db8:8::2/64")}))
    with pytest.raises(Refused, match="cannot become on-link while its VMs have 2001:db8:7:1::/64"):
        check_with(found.model_copy(update={"upstream": Upstream.ON_LINK}))
    with pytest.raises(Refused, match="while a VM of it has 2001:db8:7:1::/64"):
        check_with(found.model_copy(update={"ipv6": ip_interface("2001:db8:7:1::2/64")}))


def refusal(cluster: ClusterSpec, wanted: NodeSpec, *others: NodeSpec, found: NodeSpec | None = None) -> Refused:
    with pytest.raises(Refused) as refused:
        check(cluster, wanted, *others, found=found)
    return refused.value


@pytest.mark.parametrize(
    ("cluster", "fields"),
    [
        (FABRIC, {}),
        (SWITCHING, {"uplink": "eth0"}),
        (OWN_BRIDGE, {}),
        (OWN_BRIDGE, {"uplink": "eth0"}),
        (ROUTING, {"uplink": "eth0", "subnets": (SUBNET,)}),
        (ROUTING, {"uplink": "eth0", "ipv6": SIX}),
    ],
)
def test_a_node_says_what_its_clusters_type_needs(cluster: ClusterSpec, fields: dict[str, Any]) -> None:
    check(cluster, a_node_spec(**fields))


@pytest.mark.parametrize(
    ("cluster", "fields", "words"),
    [
        (FABRIC, {"uplink": "eth0"}, "uplink of node n1 say nothing in cluster msk, which is of type ip-fabric"),
        (SWITCHING, {}, "node n1 of the switching cluster msk needs uplink"),
        (SWITCHING, {"uplink": "eth0", "ipv6": SIX}, "ipv6 of node n1 say nothing"),
        (ROUTING, {"uplink": "eth0"}, "needs subnets or ipv6"),
        (ROUTING, {}, "needs uplink (the NIC that has its address) and subnets or ipv6"),
    ],
)
def test_a_node_that_lacks_something_or_says_too_much_is_refused(
    cluster: ClusterSpec, fields: dict[str, Any], words: str
) -> None:
    refused = refusal(cluster, a_node_spec(**fields))
    assert refused.code is Code.INVALID_REQUEST
    assert words in refused.sentence


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"uplink": "vmbr0"}, "which is the name of the cluster's bridge"),
        ({"uplink": "lo"}, "which is the loopback"),
        ({"subnets": (ip_network("10.0.0.0/24"),)}, "10.0.0.1 of node n1 lies in its subnet 10.0.0.0/24"),
    ],
)
def test_a_nodes_own_address_and_nic_are_not_its_vms(fields: dict[str, Any], words: str) -> None:
    refused = refusal(ROUTING, a_routing_node(**fields))
    assert refused.code is Code.INVALID_REQUEST
    assert words in refused.sentence


def test_an_uplink_stays_while_vms_are_behind_it() -> None:
    refused = refusal(SWITCHING, a_node_spec(uplink="mgmt0"), found=a_node_spec(uplink="eno1"))
    assert refused.code is Code.IN_USE
    assert "cannot change from eno1 to mgmt0 with 3 VMs on it" in refused.sentence


def test_no_subnet_contains_the_address_of_another_node() -> None:
    wide, narrow = a_routing_node("n1", 1, subnets=(ip_network("10.0.0.4/30"),)), a_routing_node("n6", 6)
    for wanted, other in ((wide, narrow), (narrow, wide)):
        refused = refusal(ROUTING, wanted, other)
        assert refused.code is Code.CONFLICT
        assert "10.0.0.4/30 of node n1 contains 10.0.0.6, the address of node n6" in refused.sentence


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"subnets": (ip_network("203.0.113.0/28"),)},
            "203.0.113.0/28 of node n2 overlaps 203.0.113.8/29 of node n1",
        ),
        ({"subnets": (), "ipv6": ip_interface("2001:db8:1::7/64")}, "overlaps 2001:db8:1::/64 of node n1"),
    ],
)
def test_the_provider_sends_an_address_to_one_node_only(fields: dict[str, Any], words: str) -> None:
    refused = refusal(ROUTING, a_routing_node("n2", 2, **fields), a_routing_node(ipv6=SIX))
    assert refused.code is Code.CONFLICT
    assert words in refused.sentence


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"subnets": ()}, "203.0.113.8/29 cannot be taken from node n1 with 3 VMs on it"),
        ({"ipv6": None}, "the gateway 2001:db8:1::2/64 cannot be taken"),
        ({"ipv6": ip_interface("2001:db8:1::3/64")}, "the gateway 2001:db8:1::2/64 cannot be taken"),
    ],
)
def test_what_vms_may_have_their_addresses_by_is_not_taken_away(fields: dict[str, Any], words: str) -> None:
    found = a_routing_node(ipv6=SIX)
    refused = refusal(ROUTING, a_routing_node(**{"ipv6": SIX, **fields}), found=found)
    assert refused.code is Code.IN_USE
    assert words in refused.sentence
    more = (SUBNET, ip_network("203.0.113.64/29"))
    check(ROUTING, a_routing_node(ipv6=SIX, subnets=more), found=found)


def test_a_cluster_does_not_become_of_a_type_that_its_nodes_are_not_applied_for() -> None:
    with pytest.raises(Refused, match="node n1 of the routing cluster msk needs uplink"):
        check_cluster(ROUTING, FABRIC, [(a_node_spec(), ())], 0)
    check_cluster(OWN_BRIDGE, FABRIC, [(a_node_spec(), ())], 0)
