"""The topology file: what it may say, and what it is told when it is wrong."""

import pytest

from vmfabric.lab.errors import LabError
from vmfabric.lab.topology import load, parse

GOOD = """
name: t1
asn: 65000
fabric: {ipv4: 10.0.0.0/24, ipv6: "fd00:fab::/64"}
management: {ipv4: 172.31.255.0/24, control: 172.31.255.1}
nodes:
  - {name: n1, cluster: msk, ipv4: 10.0.0.1, ipv6: "fd00:fab::1", management: 172.31.255.11}
reflectors:
  - {name: rr1, ipv4: 10.0.0.11, ipv6: "fd00:fab::11"}
core: {name: core, ipv4: 10.0.0.254, ipv6: "fd00:fab::fe"}
"""


def test_the_default_has_two_nodes_two_reflectors_and_a_core() -> None:
    topology = load(None)
    assert [node.name for node in topology.nodes] == ["n1", "n2"]
    assert [reflector.name for reflector in topology.reflectors] == ["rr1", "rr2"]
    assert topology.hosts == ("control", "n1", "n2", "rr1", "rr2", "core")


@pytest.mark.parametrize(
    ("which", "hosts", "types"),
    [
        ("switching", ["gw", "s1", "s2"], ["switching"]),
        ("routing", ["provider", "r1", "r2"], ["routing"]),
        (
            "all-types",
            ["n1", "n2", "rr1", "rr2", "core", "gw", "s1", "s2", "provider", "r1", "r2"],
            ["ip-fabric", "switching", "routing"],
        ),
    ],
)
def test_the_lab_has_topologies_of_the_other_types_and_of_all(which: str, hosts: list[str], types: list[str]) -> None:
    topology = load(which)
    assert list(topology.hosts) == ["control", *hosts]
    assert list(topology.types) == types


def test_all_types_is_the_three_side_by_side() -> None:
    topology = load("all-types")
    assert topology.nodes == load(None).nodes
    assert topology.switching == load("switching").switching
    assert topology.routing == load("routing").routing


def test_everything_that_a_lab_makes_has_its_name_in_front() -> None:
    assert all(name.startswith("t1-") for name in parse(GOOD, origin="good.yaml").namespaces())


@pytest.mark.parametrize(
    ("was", "becomes", "complaint"),
    [
        ("name: t1", "name: T1", "name: String should match pattern"),
        ("name: t1", "name: a-long-name", "name: String should match pattern"),
        ("name: t1", "name: t1\nnoodles: []", "noodles: Extra inputs are not permitted"),
        ("asn: 65000", "asn: 0", "asn: Input should be greater than or equal to 1"),
        ("name: rr1", "name: n1", "host 'n1' is named twice"),
        ("name: rr1", "name: control", "host 'control' is named twice, or takes the name of one that every lab has"),
        ("name: rr1", "name: rr.1", "reflectors.0.name: String should match pattern"),
        ("ipv4: 10.0.0.11", "ipv4: 10.0.1.11", "rr1 has address 10.0.1.11, which is outside of 10.0.0.0/24"),
        ("ipv4: 10.0.0.11", "ipv4: 10.0.0.255", "rr1 has address 10.0.0.255, which no host of 10.0.0.0/24 can have"),
        ("ipv4: 10.0.0.11", "ipv4: 10.0.0.1", "rr1 and n1 both have address 10.0.0.1"),
        ("management: 172.31.255.11", "management: 172.31.255.1", "n1 and control both have address 172.31.255.1"),
        ("core: {name: core, ", "core: {", "core.name: Field required"),
        ("core: {name: core", "switching: {name: core", "switching.gateway: Field required"),
        ("asn: 65000", "", "asn missing: a fabric has all of asn, fabric, nodes, reflectors, core"),
    ],
)
def test_a_wrong_topology_is_refused_with_the_place_and_the_reason(was: str, becomes: str, complaint: str) -> None:
    assert was in GOOD
    with pytest.raises(LabError) as refusal:
        parse(GOOD.replace(was, becomes, 1), origin="wrong.yaml")
    assert "wrong.yaml" in str(refusal.value)
    assert complaint in str(refusal.value)


def test_text_that_is_not_yaml_is_refused_with_its_file() -> None:
    with pytest.raises(LabError, match=r"broken\.yaml is not YAML"):
        parse("{", origin="broken.yaml")
