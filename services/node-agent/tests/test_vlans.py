"""What is planned so that each VM is in the VLAN of its network."""

from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmfabric.contract.desired import DesiredVm, Presence, Switched, SwitchingNode
from vmfabric.contract.iface import IfaceDrifted
from vmfabric.node_agent.domain import bridge_operations as bridges
from vmfabric.node_agent.domain.actual import Held, HeldAddress, PortVlan, VlanFiltering
from vmfabric.node_agent.domain.explanation import explain
from vmfabric.node_agent.domain.naming import BRIDGE_ALIAS, port_name
from vmfabric.node_agent.domain.operations import Operation, SetAlias
from vmfabric.node_agent.domain.plan import Plan, plan
from vmfabric.node_agent.domain.port import interface_of
from vmfabric.node_agent.samples import a_switching_node, a_vm
from vmfabric.node_agent.simulated import SimulatedKernel, an_uplink
from vmfabric.runtime.desired import Revised

from .test_agent import Node

PORT = port_name("msk", "vm1")
OWN, OPERATORS = a_switching_node(), a_switching_node(uplink=None)


def a_tagged(number: int, vlan: int | None, presence: Presence = Presence.ROUTED) -> DesiredVm:
    return a_vm(number, wiring=Switched(bridge="vmbr0", vlan=vlan), presence=presence)


def untagged(number: int) -> PortVlan:
    return PortVlan(number, comes_untagged=True, leaves_untagged=True)


def a_kernel(
    *, alias: str | None = BRIDGE_ALIAS, can_filter: bool = True, filtering: VlanFiltering | None = None
) -> SimulatedKernel:
    """With a bridge that the uplink is in, ours or another's."""
    kernel = SimulatedKernel(
        uplinks={"uplink": an_uplink(ip_interface("192.0.2.1/24"))}, can_filter_vlans=can_filter, table=True
    )
    kernel.carry_out(bridges.CreateBridge(None, "vmbr0", "02:00:00:00:00:fe"))
    made = kernel.links["vmbr0"]
    kernel.links["vmbr0"] = replace(made, up=True, group=0, filtering=filtering or made.filtering)
    if alias is not None:
        kernel.carry_out(SetAlias(None, "vmbr0", alias))
    kernel.carry_out(bridges.SetMaster(None, "uplink", "vmbr0"))
    return kernel


def an_operators(*vlans: PortVlan, is_on: bool = True, pvid: int = 1) -> SimulatedKernel:
    kernel = a_kernel(alias=None, filtering=VlanFiltering(is_on=is_on, untagged=pvid))
    kernel.uplinks["uplink"] = replace(kernel.uplinks["uplink"], vlans=frozenset(vlans))
    return kernel


def planned(kernel: SimulatedKernel, node: SwitchingNode | None, *vms: DesiredVm) -> Plan:
    return plan(vms, kernel.actual(), node=node)


def problems(kernel: SimulatedKernel, node: SwitchingNode | None, *vms: DesiredVm) -> str:
    return " ".join(problem.sentence for problem in planned(kernel, node, *vms).problems)


def about_vlans(kernel: SimulatedKernel, node: SwitchingNode | None, *vms: DesiredVm) -> list[tuple[str | None, str]]:
    """What is to be done, and for whom."""
    kinds = bridges.SetVlanFiltering | bridges.JoinVlan | bridges.LeaveVlans
    return [(it.vm, str(it)) for it in planned(kernel, node, *vms).operations if isinstance(it, kinds)]


def carry_out(kernel: SimulatedKernel, node: SwitchingNode | None, *vms: DesiredVm) -> tuple[Operation, ...]:
    operations = planned(kernel, node, *vms).operations
    for operation in operations:
        kernel.carry_out(operation)
    return operations


def test_a_port_joins_its_vlan_before_it_comes_up_and_the_uplink_carries_that() -> None:
    words = [str(it) for it in planned(a_kernel(), OWN, a_tagged(1, 7)).operations]
    assert words[words.index("keep VLANs apart in vmbr0") :] == [
        "keep VLANs apart in vmbr0",
        f"set ipv6/disable_ipv6 of {PORT} to 1",
        f"load anti-spoofing of {PORT}",
        f"put {PORT} into vmbr0",
        f"put {PORT} into VLAN 7",
        f"take {PORT} out of VLAN 1",
        "put uplink into VLAN 7, tagged",
        f"set {PORT} up",
    ]


def test_where_no_vm_is_in_a_vlan_nothing_is_done_about_vlans() -> None:
    kernel = a_kernel()
    assert about_vlans(kernel, OWN, a_tagged(1, None)) == []
    carry_out(kernel, OWN, a_tagged(1, None))
    assert kernel.links[PORT].vlans == {untagged(1)}


def test_the_last_vm_of_a_vlan_takes_it_from_the_uplink_and_the_last_of_all_ends_the_filtering() -> None:
    kernel = a_kernel()
    carry_out(kernel, OWN, a_tagged(1, 7), a_tagged(2, 7), a_tagged(3, 8))
    gone = [a_tagged(number, 7, Presence.ABSENT) for number in (1, 2)]
    assert about_vlans(kernel, OWN, gone[0], a_tagged(2, 7), a_tagged(3, 8)) == []
    assert about_vlans(kernel, OWN, *gone, a_tagged(3, 8)) == [("vm2", "take uplink out of VLAN 7")]
    carry_out(kernel, OWN, *gone, a_tagged(3, 8))
    gone.append(a_tagged(3, 8, Presence.ABSENT))
    assert about_vlans(kernel, OWN, *gone) == [
        ("vm3", "tell no VLANs apart in vmbr0"),
        ("vm3", "take uplink out of VLAN 8"),
    ]


def test_what_a_vm_needs_of_the_uplink_is_done_for_that_vm_and_what_is_nobodys_for_the_node() -> None:
    kernel = a_kernel()
    carry_out(kernel, OWN, a_tagged(1, 7), a_tagged(2, 7))
    kernel.links["vmbr0"] = replace(kernel.links["vmbr0"], filtering=VlanFiltering(is_on=False, untagged=1))
    strays = frozenset(PortVlan(number) for number in (5, 6, 8))
    kernel.uplinks["uplink"] = replace(kernel.uplinks["uplink"], vlans=strays)
    assert set(about_vlans(kernel, OWN, a_tagged(1, 7), a_tagged(2, 7))) == {
        *((vm, "keep VLANs apart in vmbr0") for vm in ("vm1", "vm2")),
        *((vm, "put uplink into VLAN 7, tagged") for vm in ("vm1", "vm2")),
        (None, "put uplink into VLAN 1"),
    }
    carry_out(kernel, OWN, a_tagged(1, 7), a_tagged(2, 7))
    assert strays < kernel.uplinks["uplink"].vlans, "what an operator has put there stays"
    gone = [a_tagged(number, 7, Presence.ABSENT) for number in (1, 2)]
    assert about_vlans(kernel, OWN, *gone) == [("vm2", "take uplink out of VLAN 7")], "and so does the filtering"


def test_where_nothing_is_tagged_by_itself_the_uplink_is_left_as_it_is() -> None:
    """Or the node would be cut off."""
    kernel = a_kernel()
    carry_out(kernel, OWN, a_tagged(1, 7))
    kernel.links["vmbr0"] = replace(kernel.links["vmbr0"], filtering=VlanFiltering(is_on=True, untagged=0))
    kernel.uplinks["uplink"] = replace(kernel.uplinks["uplink"], vlans=frozenset({untagged(20), PortVlan(7)}))
    assert about_vlans(kernel, OWN, a_tagged(1, 7)) == []


def test_vlans_are_not_kept_apart_where_others_hear_theirs_over_the_bridge() -> None:
    kernel = a_kernel()
    bridge = kernel.links["vmbr0"].index
    kernel.uplinks["vmbr0.100"] = replace(kernel.uplinks["uplink"], name="vmbr0.100", master=None, over=bridge)
    said = problems(kernel, OWN, a_tagged(1, 7))
    assert "vmbr0.100 over vmbr0 would hear nothing any more" in said
    assert about_vlans(kernel, OWN, a_tagged(1, 7)) == []


def test_the_vlan_of_a_vm_that_nobody_speaks_of_stays() -> None:
    kernel = a_kernel()
    carry_out(kernel, OWN, a_tagged(1, 7))
    assert about_vlans(kernel, OWN) == []
    assert about_vlans(kernel, None) == []


def test_a_node_whose_values_are_not_known_leaves_its_uplink() -> None:
    kernel = a_kernel()
    carry_out(kernel, OWN, a_tagged(1, 7))
    kernel.uplinks["uplink"] = replace(kernel.uplinks["uplink"], vlans=frozenset())
    assert about_vlans(kernel, None, a_tagged(1, 7)) == []


def test_an_operators_bridge_and_its_uplink_are_left_and_vm_ports_are_ours() -> None:
    vlans = (untagged(1), PortVlan(7), PortVlan(9))
    kernel = an_operators(*vlans)
    carry_out(kernel, OPERATORS, a_tagged(1, 7), a_tagged(2, None))
    assert kernel.uplinks["uplink"].vlans == set(vlans)
    assert kernel.links[PORT].vlans == {untagged(7)}
    kernel.links[PORT] = replace(kernel.links[PORT], vlans=frozenset({untagged(7), PortVlan(9)}))
    assert about_vlans(kernel, OPERATORS, a_tagged(1, 7)) == [("vm1", f"take {PORT} out of VLAN 9")]
    carry_out(kernel, OPERATORS, a_tagged(1, 7, Presence.ABSENT))
    assert kernel.uplinks["uplink"].vlans == set(vlans)
    assert kernel.links["vmbr0"].filtering == VlanFiltering(is_on=True, untagged=1)


def test_what_is_not_tagged_is_in_the_vlan_that_an_operators_bridge_gives_it() -> None:
    kernel = an_operators(untagged(20), PortVlan(7), pvid=20)
    carry_out(kernel, OPERATORS, a_tagged(1, None), a_tagged(2, 7))
    assert kernel.links[PORT].vlans == {untagged(20)}
    assert kernel.links[port_name("msk", "vm2")].vlans == {untagged(7)}


@pytest.mark.parametrize(
    ("kernel", "node", "vlan", "said"),
    [
        (
            a_kernel(can_filter=False),
            OWN,
            7,
            "the kernel of this node cannot keep VLANs apart in a bridge: it was built without CONFIG_BRIDGE_VLAN",
        ),
        (a_kernel(), OWN, 1, "has VLAN 1, which inside vmbr0 is that of all that is not tagged"),
        (
            an_operators(PortVlan(7), is_on=False),
            OPERATORS,
            7,
            "vmbr0, which is not vmfabric's, keeps no VLANs apart",
        ),
        (an_operators(untagged(1)), OPERATORS, 7, "no port of vmbr0, which is not vmfabric's, leads to it"),
        (an_operators(untagged(7)), OPERATORS, 7, "no port of vmbr0, which is not vmfabric's, leads to it"),
        (an_operators(PortVlan(7), pvid=0), OPERATORS, None, "the VM's network has no VLAN, and a port of vmbr0"),
    ],
)
def test_what_keeps_a_vm_from_its_vlan_is_said_and_nothing_is_half_wired(
    kernel: SimulatedKernel, node: SwitchingNode, vlan: int | None, said: str
) -> None:
    before = kernel.actual()
    [problem] = planned(kernel, node, a_tagged(1, vlan)).problems
    assert problem.vm == "vm1"
    assert said in problem.sentence
    assert carry_out(kernel, node, a_tagged(1, vlan)) == ()
    assert kernel.actual() == before


def test_a_vm_in_a_vlan_is_explained_with_it() -> None:
    kernel, vm = a_kernel(), a_tagged(1, 7)
    carry_out(kernel, OWN, vm)
    said = [it.sentence for it in explain("vm1", vm, kernel.actual(), planned(kernel, OWN, vm))]
    assert f"{PORT} is up behind its anti-spoofing, a port of vmbr0 in VLAN 7" in said


async def test_that_vlans_come_and_go_with_their_vms_is_no_drift(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.kernel.uplinks["uplink"] = an_uplink(ip_interface("192.0.2.1/24"))
    node.kernel.holdings["uplink"] = Held((HeldAddress(ip_interface("192.0.2.1/24")),))
    node.view.node = Revised(1, OWN)
    node.view.want(a_tagged(1, None))
    said = await node.step()
    for vms in (
        [a_tagged(2, 7), a_tagged(3, 7)],
        [a_tagged(2, 7, Presence.ABSENT)],
        [a_tagged(4, 8), a_tagged(3, 7, Presence.ABSENT)],
        [a_tagged(4, 8, Presence.ABSENT)],
    ):
        node.view.want(*vms)
        said += await node.step()
    assert node.kernel.uplinks["uplink"].vlans == {untagged(1)}
    assert not [event for event in said if isinstance(event, IfaceDrifted)]
    node.kernel.uplinks["uplink"] = replace(node.kernel.uplinks["uplink"], vlans=frozenset())
    [drifted] = await node.step()
    assert isinstance(drifted, IfaceDrifted)
    assert drifted.repaired == ("put uplink into VLAN 1",)


SOME_VMS = st.lists(
    st.builds(
        a_tagged,
        st.integers(1, 4),
        st.sampled_from([None, 7, 8]),
        st.sampled_from([Presence.ROUTED, Presence.ABSENT]),
    ),
    max_size=4,
    unique_by=lambda vm: vm.vm,
)
SOME_VLANS = st.builds(
    lambda leaving, coming: frozenset(PortVlan(it, it == coming, untagged) for it, untagged in leaving.items()),
    st.dictionaries(st.integers(1, 10), st.booleans(), max_size=4),
    st.integers(0, 10),
)


@given(
    first=SOME_VMS,
    second=SOME_VMS,
    of_uplink=SOME_VLANS,
    of_ports=SOME_VLANS,
    is_on=st.booleans(),
    crash=st.integers(0, 40),
)
def test_from_any_state_each_port_gets_into_its_vlan_and_the_uplink_into_all_of_them(
    *,
    first: list[DesiredVm],
    second: list[DesiredVm],
    of_uplink: frozenset[PortVlan],
    of_ports: frozenset[PortVlan],
    is_on: bool,
    crash: int,
) -> None:
    kernel = a_kernel()
    carry_out(kernel, OWN, *first)
    kernel.links = {
        name: replace(link, filtering=VlanFiltering(is_on=is_on, untagged=1))
        if name == "vmbr0"
        else replace(link, vlans=of_ports)
        for name, link in kernel.links.items()
    }
    kernel.uplinks["uplink"] = replace(kernel.uplinks["uplink"], vlans=of_uplink)
    known = {vm.vm for vm in second}
    wanted = [*second, *(vm for vm in first if vm.vm not in known)]
    for operation in planned(kernel, OWN, *wanted).operations[:crash]:
        kernel.carry_out(operation)
    carry_out(kernel, OWN, *wanted)
    assert planned(kernel, OWN, *wanted).operations == ()
    here = [vm for vm in wanted if vm.presence is not Presence.ABSENT]
    vlans = {interface_of(vm): vm.wiring.vlan for vm in here if isinstance(vm.wiring, Switched)}
    for port, vlan in vlans.items():
        assert kernel.links[port].vlans == {untagged(vlan or 1)}
    tagged = {vlan for vlan in vlans.values() if vlan is not None}
    numbers = {vlan.number for vlan in kernel.uplinks["uplink"].vlans}
    assert {untagged(1)} | {PortVlan(vlan) for vlan in tagged} <= kernel.uplinks["uplink"].vlans
    assert numbers <= {1, *tagged, *(vlan.number for vlan in of_uplink)}
    assert kernel.links["vmbr0"].filtering is not None
    assert kernel.links["vmbr0"].filtering.is_on or not tagged
