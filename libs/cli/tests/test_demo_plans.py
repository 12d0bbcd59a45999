"""What a demo shows of each network type."""

from vmfabric.cli.demo_plans import plans
from vmfabric.contract.cluster import NetworkType
from vmfabric.lab.topology import load


def test_a_demo_has_a_plan_for_exactly_the_types_of_its_data_centre() -> None:
    for which in (None, "switching", "routing", "all-types"):
        topology = load(which)
        assert set(plans(topology, 1)) == set(topology.types)


def test_routed_vms_have_a_neighbour_on_their_own_node_and_one_on_another() -> None:
    plan = plans(load("routing"), 1)[NetworkType.ROUTING]
    same = [pair for pair in plan.pairs if plan.vms[pair[0]] == plan.vms[pair[1]]]
    assert {plan.vms[first] for first, _ in same} == {"r1", "r2"}
    assert len(plan.pairs) > len(same)


def test_switched_vms_of_two_nodes_ping_each_other_and_their_gateways_of_both_families() -> None:
    plan = plans(load("switching"), 1)[NetworkType.SWITCHING]
    assert {(plan.vms[first], plan.vms[second]) for first, second in plan.pairs} == {("s1", "s2"), ("s2", "s1")}
    assert [gateway.version for gateway in plan.gateways] == [4, 6]


def test_as_many_vms_as_asked_for_come_in_an_ip_fabric() -> None:
    assert list(plans(load(None), 3)[NetworkType.IP_FABRIC].vms) == ["vm1", "vm2", "vm3"]
