"""What is planned for which difference."""

from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmfabric.contract.bandwidth import Bandwidth
from vmfabric.contract.cluster import Gateway, Virtualization
from vmfabric.contract.dataplane import (
    RESTORED_LOCAL_PREFERENCE,
    RESTORED_METRIC,
    RESTORED_REFUGE_LOCAL_PREFERENCE,
    RESTORED_REFUGE_METRIC,
    ROUTE_METRIC,
)
from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.node_agent.domain import naming
from vmfabric.node_agent.domain import operations as do
from vmfabric.node_agent.domain.actual import HostRoute, Link
from vmfabric.node_agent.domain.antispoof import NOT_GUARDED, Chain, SetName
from vmfabric.node_agent.domain.explanation import explain, explain_node
from vmfabric.node_agent.domain.plan import plan
from vmfabric.node_agent.samples import a_vm
from vmfabric.node_agent.simulated import SimulatedKernel, an_uplink


def words(vms: list[DesiredVm], kernel: SimulatedKernel) -> list[str]:
    return [str(operation) for operation in plan(vms, kernel.actual()).operations]


def carry_out(vms: list[DesiredVm], kernel: SimulatedKernel) -> None:
    for operation in plan(vms, kernel.actual()).operations:
        kernel.carry_out(operation)


def a_kernel_with(*vms: DesiredVm) -> SimulatedKernel:
    kernel = SimulatedKernel()
    carry_out(list(vms), kernel)
    assert words(list(vms), kernel) == []
    return kernel


def a_strangers_link(name: str) -> Link:
    return Link(
        index=7,
        name=name,
        kind="veth",
        alias=None,
        alternative_names=frozenset(),
        group=0,
        mac="02:aa:aa:aa:aa:aa",
        mtu=1500,
        up=True,
        carrier=True,
        addresses=frozenset(),
        sysctls={},
    )


def test_a_new_vm_is_wired_in_the_order_of_the_kernel() -> None:
    assert words([a_vm(1)], SimulatedKernel()) == [
        "set ipv4/ip_forward to 1",
        "set ipv6/conf/all/forwarding to 1",
        "create TAP vm1_net0",
        "set alias of vm1_net0 to vmfabric:msk/vm1",
        "set ipv4/forwarding of vm1_net0 to 1",
        "set ipv4/rp_filter of vm1_net0 to 1",
        "set ipv4/proxy_arp of vm1_net0 to 0",
        "set ipv6/disable_ipv6 of vm1_net0 to 0",
        "set ipv6/forwarding of vm1_net0 to 1",
        "set ipv6/accept_ra of vm1_net0 to 0",
        "set ipv6/addr_gen_mode of vm1_net0 to 1",
        "set ipv6/accept_dad of vm1_net0 to 0",
        "add address 169.254.0.1/32 to vm1_net0",
        "add address fe80::1/64 to vm1_net0",
        "load nftables table netdev vmfabric",
        "load anti-spoofing of vm1_net0",
        "set vm1_net0 up",
        "add route 10.0.0.1/32 to vm1_net0",
        "add route 2001:db8::1/128 to vm1_net0",
    ]


def test_every_link_comes_up_after_all_anti_spoofing_of_the_pass() -> None:
    operations = plan([a_vm(number) for number in range(1, 20)], SimulatedKernel().actual()).operations
    guards = [index for index, it in enumerate(operations) if isinstance(it, do.LoadGuard)]
    ups = [index for index, it in enumerate(operations) if isinstance(it, do.SetUp)]
    assert len(guards) == len(ups) == 19
    assert max(guards) < min(ups)


def test_a_wired_vm_loses_its_routes_and_nothing_else() -> None:
    kernel = a_kernel_with(a_vm(1))
    assert words([a_vm(1, presence=Presence.WIRED)], kernel) == [
        "remove route 10.0.0.1/32 from vm1_net0",
        "remove route 2001:db8::1/128 from vm1_net0",
    ]


def a_kernel_on_a_segment(*vms: DesiredVm) -> SimulatedKernel:
    kernel = a_kernel_with(*vms)
    kernel.uplinks = {"uplink": an_uplink(IPv4Interface("192.0.2.1/24"))}
    return kernel


def test_a_guest_that_has_come_is_preferred_and_then_routed_with_a_route_at_every_moment() -> None:
    kernel = a_kernel_with(a_vm(1, presence=Presence.WIRED))
    preferred = a_vm(1, presence=Presence.PREFERRED)
    assert words([preferred], kernel) == [
        "add route 10.0.0.1/32 to vm1_net0, metric 18500",
        "add route 2001:db8::1/128 to vm1_net0, metric 18500",
    ]
    carry_out([preferred], kernel)
    assert words([a_vm(1)], kernel) == [
        "add route 10.0.0.1/32 to vm1_net0",
        "add route 2001:db8::1/128 to vm1_net0",
        "remove route 10.0.0.1/32 from vm1_net0, metric 18500",
        "remove route 2001:db8::1/128 from vm1_net0, metric 18500",
    ]


def test_a_delegated_prefix_is_routed_by_the_address_in_it_and_all_of_it_may_be_sent_from() -> None:
    vm = a_vm(1, addresses=("2001:db8:0:1::1",), delegated=("2001:db8:0:1::/64",))
    kernel = a_kernel_with(a_vm(1, addresses=("2001:db8:0:1::1",), presence=Presence.WIRED))
    assert words([vm], kernel) == [
        "load anti-spoofing of vm1_net0",
        "add route 2001:db8:0:1::1/128 to vm1_net0",
        "add route 2001:db8:0:1::/64 via 2001:db8:0:1::1 to vm1_net0",
    ]
    carry_out([vm], kernel)
    assert (SetName.PREFIXES, IPv6Network("2001:db8:0:1::/64")) in kernel.guards["vm1_net0"].elements
    away = a_vm(1, addresses=("2001:db8:0:1::1",), delegated=("2001:db8:0:1::/64",), presence=Presence.WIRED)
    carry_out([away], kernel)
    assert kernel.routes == set()


def test_a_guest_that_has_left_is_forwarded_over_the_segment_that_both_nodes_are_on() -> None:
    kernel = a_kernel_on_a_segment(a_vm(1))
    forwarded = a_vm(1, presence=Presence.FORWARDED, toward="192.0.2.2")
    assert words([forwarded], kernel) == ["add route 10.0.0.1/32 via 192.0.2.2 to uplink, metric 18550"]
    carry_out([forwarded], kernel)
    assert words([a_vm(1)], kernel) == ["remove route 10.0.0.1/32 from uplink, metric 18550"]
    assert words([a_vm(1, presence=Presence.ABSENT)], kernel)[:3] == [
        "remove route 10.0.0.1/32 from uplink",
        "remove route 10.0.0.1/32 from vm1_net0",
        "remove route 2001:db8::1/128 from vm1_net0",
    ]


def test_after_a_reboot_the_refuge_of_a_vm_is_preferred_to_the_lost_node_that_remembers_it_too() -> None:
    kernel, refuge = SimulatedKernel(), a_vm(1, presence=Presence.EVACUATED)
    for operation in plan([refuge], kernel.actual(), remembered={"vm1"}).operations:
        kernel.carry_out(operation)
    assert {route.metric for route in kernel.routes} == {RESTORED_REFUGE_METRIC}
    assert RESTORED_REFUGE_LOCAL_PREFERENCE > RESTORED_LOCAL_PREFERENCE
    assert plan([refuge], kernel.actual(), remembered={"vm1"}).operations == ()


def test_after_a_reboot_a_vm_is_served_with_less_preference_until_somebody_says_that_it_is_still_here() -> None:
    kernel, remembered = SimulatedKernel(), {"vm1"}
    for operation in plan([a_vm(1)], kernel.actual(), remembered=remembered).operations:
        kernel.carry_out(operation)
    assert {route.metric for route in kernel.routes} == {RESTORED_METRIC}
    assert plan([a_vm(1)], kernel.actual(), remembered=remembered).operations == ()
    assert words([a_vm(1)], kernel) == [
        "add route 10.0.0.1/32 to vm1_net0",
        "add route 2001:db8::1/128 to vm1_net0",
        "remove route 10.0.0.1/32 from vm1_net0, metric 18650",
        "remove route 2001:db8::1/128 from vm1_net0, metric 18650",
    ]


@pytest.mark.parametrize("presence", [Presence.ROUTED, Presence.PREFERRED, Presence.FORWARDED, Presence.WIRED])
def test_a_restarted_agent_leaves_what_it_remembers_as_it_is(presence: Presence) -> None:
    vm = a_vm(1, presence=presence, toward="192.0.2.2")
    kernel = a_kernel_on_a_segment()
    carry_out([vm], kernel)
    assert plan([vm], kernel.actual(), remembered={"vm1"}).operations == ()


@pytest.mark.parametrize("toward", ["198.51.100.2", "192.0.2.1", "10.0.0.1"])
def test_a_guest_that_left_for_a_node_out_of_reach_stays_routed(toward: str) -> None:
    kernel = a_kernel_on_a_segment(a_vm(1))
    assert words([a_vm(1, presence=Presence.FORWARDED, toward=toward)], kernel) == []


def test_an_absent_vm_goes_routes_first_and_leaves_nothing() -> None:
    kernel = a_kernel_with(a_vm(1))
    absent = a_vm(1, presence=Presence.ABSENT)
    assert words([absent], kernel) == [
        "remove route 10.0.0.1/32 from vm1_net0",
        "remove route 2001:db8::1/128 from vm1_net0",
        "set vm1_net0 down",
        "remove anti-spoofing of vm1_net0",
        "delete vm1_net0",
    ]
    carry_out([absent], kernel)
    assert (kernel.links, kernel.routes, kernel.guards) == ({}, set(), {})


def test_a_vm_of_which_nothing_is_said_keeps_everything_and_is_reported() -> None:
    kernel = a_kernel_with(a_vm(1))
    found = plan([], kernel.actual())
    assert found.operations == ()
    assert found.orphans == ("vm1_net0",)


def test_a_route_of_ours_that_is_no_vms_is_reported_and_left() -> None:
    kernel = a_kernel_with(a_vm(1))
    stray = HostRoute(ip_network("10.0.0.99/32"), "lo", ROUTE_METRIC)
    kernel.routes.add(stray)
    found = plan([a_vm(1)], kernel.actual())
    assert (found.operations, found.stray_routes) == ((), (stray,))
    (finding,) = explain_node(found)
    assert "10.0.0.99/32 has our protocol number and is no VM's" in finding.sentence


def test_a_link_of_ours_stays_ours_whatever_somebody_writes_into_its_alias() -> None:
    kernel = a_kernel_with(a_vm(1))
    kernel.links["vm1_net0"] = replace(kernel.links["vm1_net0"], alias="mine", mtu=1400)
    assert words([a_vm(1)], kernel) == ["set alias of vm1_net0 to vmfabric:msk/vm1", "set MTU of vm1_net0 to 1500"]


def test_limits_are_explained() -> None:
    vm = a_vm(1, bandwidth=Bandwidth(in_kbit=5_000, out_kbit=50_000))
    kernel = a_kernel_with(vm)
    found = [it.sentence for it in explain("vm1", vm, kernel.actual(), plan([vm], kernel.actual()))]
    assert "limited to 5000 kbit/s to it and 50000 kbit/s from it; what goes over it is dropped" in found
    free = explain("vm1", a_vm(1), kernel.actual(), plan([vm], kernel.actual()))
    assert not any("limited" in it.sentence for it in free)


def test_a_port_that_nobody_holds_is_explained() -> None:
    kernel = a_kernel_with(a_vm(1))
    found = plan([a_vm(1)], kernel.actual())
    assert all(it.is_right for it in explain("vm1", a_vm(1), kernel.actual(), found))
    kernel.links["vm1_net0"] = replace(kernel.links["vm1_net0"], carrier=False)
    wrong = [it.sentence for it in explain("vm1", a_vm(1), kernel.actual(), found) if not it.is_right]
    assert len(wrong) == 1
    assert "vm1_net0 has no carrier" in wrong[0]


def test_a_strangers_link_of_the_same_name_is_reported_and_stops_no_other_vm() -> None:
    kernel = SimulatedKernel(links={"vm1_net0": a_strangers_link("vm1_net0")})
    found = plan([a_vm(1), a_vm(2)], kernel.actual())
    assert [problem.vm for problem in found.problems] == ["vm1"]
    assert "vm1_net0" in found.problems[0].sentence
    assert {operation.vm for operation in found.operations} == {None, "vm2"}


def test_a_strangers_link_is_not_deleted_with_an_absent_vm() -> None:
    kernel = SimulatedKernel(links={"vm1_net0": a_strangers_link("vm1_net0")})
    found = plan([a_vm(1, presence=Presence.ABSENT)], kernel.actual())
    assert {operation.vm for operation in found.operations} == {None}
    assert found.problems == ()


def test_a_chain_that_outlived_its_link_does_not_stay_on_a_strangers_link_of_the_same_name() -> None:
    kernel = a_kernel_with(a_vm(1))
    kernel.delete_link("vm1_net0")
    kernel.links["vm1_net0"] = a_strangers_link("vm1_net0")
    assert words([a_vm(1)], kernel) == ["remove anti-spoofing of vm1_net0"]
    carry_out([a_vm(1)], kernel)
    assert kernel.guards == {}
    assert words([a_vm(1)], kernel) == []


def test_a_link_that_somebody_renamed_gets_its_name_back_and_keeps_its_guest() -> None:
    kernel = a_kernel_with(a_vm(1), a_vm(2))
    index = kernel.links["vm1_net0"].index
    kernel.rename_link("vm1_net0", "mine")
    converge([a_vm(1), a_vm(2)], kernel)
    assert kernel.links["vm1_net0"].index == index
    assert "mine" not in kernel.links


def test_an_absent_vm_leaves_no_link_that_somebody_renamed() -> None:
    kernel = a_kernel_with(a_vm(1))
    kernel.rename_link("vm1_net0", "mine")
    carry_out([a_vm(1, presence=Presence.ABSENT)], kernel)
    assert (kernel.links, kernel.routes, kernel.guards) == ({}, set(), {})


def test_a_renamed_link_whose_name_is_taken_goes_with_its_vm_and_the_strangers_stays() -> None:
    kernel = a_kernel_with(a_vm(1))
    kernel.rename_link("vm1_net0", "mine")
    kernel.links["vm1_net0"] = a_strangers_link("vm1_net0")
    assert [problem.vm for problem in plan([a_vm(1)], kernel.actual()).problems] == ["vm1"]
    carry_out([a_vm(1, presence=Presence.ABSENT)], kernel)
    assert kernel.links == {"vm1_net0": a_strangers_link("vm1_net0")}


def test_an_address_that_another_vm_still_has_is_not_wired_twice() -> None:
    kernel = a_kernel_with(a_vm(1))
    later = a_vm(2, addresses=("10.0.0.1",))
    found = plan([a_vm(1), later], kernel.actual())
    assert found.operations == ()
    assert [problem.vm for problem in found.problems] == ["vm2"]
    carry_out([a_vm(1, presence=Presence.ABSENT), later], kernel)
    assert words([a_vm(1, presence=Presence.ABSENT), later], kernel) == []
    assert kernel.routes == {HostRoute(ip_network("10.0.0.1/32"), "vm2_net0", ROUTE_METRIC)}


def test_other_addresses_replace_the_old_ones() -> None:
    kernel = a_kernel_with(a_vm(1))
    assert words([a_vm(1, addresses=("10.0.0.9",))], kernel) == [
        "remove route 10.0.0.1/32 from vm1_net0",
        "remove route 2001:db8::1/128 from vm1_net0",
        "load anti-spoofing of vm1_net0",
        "add route 10.0.0.9/32 to vm1_net0",
    ]


def test_another_gateway_replaces_the_old_one() -> None:
    kernel = a_kernel_with(a_vm(1))
    gateway = Gateway(ipv4=ip_address("192.0.2.1"), ipv6=ip_address("2001:db8:1::1"), mac="02:00:5e:00:00:02")
    assert words([a_vm(1, gateway=gateway)], kernel) == [
        "set MAC of vm1_net0 to 02:00:5e:00:00:02",
        "remove address 169.254.0.1/32 from vm1_net0",
        "remove address fe80::1/64 from vm1_net0",
        "add address 192.0.2.1/32 to vm1_net0",
        "add address 2001:db8:1::1/128 to vm1_net0",
    ]


def test_a_link_of_the_wrong_kind_is_made_anew() -> None:
    kernel = a_kernel_with(a_vm(1))
    vm = a_vm(1, virtualization=Virtualization.LXD)
    assert [it for it in words([vm], kernel) if "vm1_net0" in it][:3] == [
        "set vm1_net0 down",
        "delete vm1_net0",
        "create veth vm1_net0",
    ]
    carry_out([vm], kernel)
    assert words([vm], kernel) == []


def test_without_room_for_ipv6_an_ipv4_vm_is_wired_and_an_ipv6_vm_is_reported() -> None:
    only_ipv4 = a_vm(1, addresses=("10.0.0.1",), mtu=1000)
    found = plan([only_ipv4, a_vm(2, mtu=1000)], SimulatedKernel().actual())
    assert [problem.vm for problem in found.problems] == ["vm2"]
    assert not [it for it in found.operations if it.vm == "vm1" and "ipv6" in str(it)]


@pytest.mark.parametrize(
    ("change", "repair"),
    [
        ({"up": False}, "set vm1_net0 up"),
        ({"mac": "02:aa:aa:aa:aa:aa"}, "set MAC of vm1_net0 to 02:00:5e:00:00:01"),
        ({"mtu": 1400}, "set MTU of vm1_net0 to 1500"),
        ({"alias": None}, "set alias of vm1_net0 to vmfabric:msk/vm1"),
        ({"addresses": frozenset()}, "add address 169.254.0.1/32 to vm1_net0"),
        ({"addresses": frozenset({IPv4Interface("192.0.2.1/24")})}, "remove address 192.0.2.1/24 from vm1_net0"),
        ({"sysctls": {}}, "set ipv4/rp_filter of vm1_net0 to 1"),
    ],
)
def test_what_somebody_changed_is_put_back(change: dict[str, object], repair: str) -> None:
    kernel = a_kernel_with(a_vm(1), a_vm(2))
    kernel.links["vm1_net0"] = replace(kernel.links["vm1_net0"], **change)  # type: ignore[arg-type]
    planned = plan([a_vm(1), a_vm(2)], kernel.actual()).operations
    assert repair in map(str, planned)
    assert {operation.vm for operation in planned} == {"vm1"}


def test_anti_spoofing_that_lets_more_through_is_put_back() -> None:
    kernel = a_kernel_with(a_vm(1))
    right = kernel.guards["vm1_net0"]
    for wrong in (
        replace(right, from_guest=Chain(hooked=True, comments=())),
        replace(right, from_guest=None),
        replace(right, elements=right.elements | {(SetName.MACS, "02:aa:aa:aa:aa:aa")}),
        replace(right, elements=frozenset(it for it in right.elements if it[0] is not SetName.TARGETS)),
        replace(NOT_GUARDED, from_guest=right.from_guest),
    ):
        kernel.guards["vm1_net0"] = wrong
        assert words([a_vm(1)], kernel) == ["load anti-spoofing of vm1_net0"]


def test_a_limit_that_is_missing_or_is_another_is_put_back() -> None:
    limited = a_vm(1, bandwidth=Bandwidth(in_kbit=5_000, out_kbit=50_000))
    for other in (a_vm(1), a_vm(1, bandwidth=Bandwidth(in_kbit=6_000, out_kbit=50_000))):
        assert words([limited], a_kernel_with(other)) == ["load anti-spoofing of vm1_net0"]
        assert words([other], a_kernel_with(limited)) == ["load anti-spoofing of vm1_net0"]


def test_a_link_that_was_begun_and_not_marked_is_finished() -> None:
    kernel = SimulatedKernel()
    for operation in plan([a_vm(1)], kernel.actual()).operations:
        kernel.carry_out(operation)
        if isinstance(operation, do.CreateLink):
            break
    assert kernel.links["vm1_net0"].alias is None
    found = plan([a_vm(1)], kernel.actual())
    assert found.problems == ()
    assert "set alias of vm1_net0 to vmfabric:msk/vm1" in map(str, found.operations)


def test_names_fit_the_kernel_and_stay_apart() -> None:
    assert naming.interface_name("msk", "vm12") == "vm12_net0"
    assert naming.interface_name("msk", "a" * 10) == "a" * 10 + "_net0"
    long = [naming.interface_name(cluster, "a" * length) for cluster in ("msk", "spb") for length in range(11, 64)]
    assert len(set(long)) == len(long)
    assert {len(name) for name in long} == {15}
    # No VM's own name has an underscore, so no VM can ask for another's short name.
    assert all(name.removesuffix("_net0").startswith("v_") for name in long)
    assert naming.alternative_name("a" * 63, naming.interface_name("msk", "a" * 63)) == "a" * 63 + "_net0"
    assert naming.alternative_name("vm12", "vm12_net0") is None
    assert naming.guest_interface_name("msk", "vm12") == "vm12_eth0"


def some_vm(number: int, network: int, presence: Presence, virtualization: Virtualization, mtu: int) -> DesiredVm:
    addresses = (f"10.{network}.0.{number}", f"2001:db8:{network}:{number}::1")[: 1 + network % 2]
    return a_vm(
        number,
        presence=presence,
        virtualization=virtualization,
        mtu=mtu,
        addresses=addresses,
        delegated=(f"2001:db8:3:{number}::/64",) if network == 3 else (),
        toward=f"192.0.2.{number}",
    )


VMS = st.builds(
    some_vm,
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from(list(Presence)),
    st.sampled_from(list(Virtualization)),
    st.sampled_from([1400, 1500]),
)
STATES = st.lists(VMS, max_size=5, unique_by=lambda vm: vm.vm)
CLASHING = st.lists(
    st.builds(a_vm, st.integers(1, 5), addresses=st.sampled_from([("10.0.9.9",), ("2001:db8:9::9", "10.0.9.9")])),
    max_size=5,
    unique_by=lambda vm: vm.vm,
)


def converge(desired: list[DesiredVm], kernel: SimulatedKernel, *, rounds: int = 1) -> None:
    for _ in range(rounds):
        carry_out(desired, kernel)
    assert words(desired, kernel) == []


@given(STATES, STATES)
def test_one_pass_reaches_any_state_from_any_other(first: list[DesiredVm], second: list[DesiredVm]) -> None:
    kernel = a_kernel_on_a_segment()
    converge(first, kernel)
    known = {vm.vm for vm in second}
    # What is said of a VM does not vanish: the last word about it stays.
    converge([*second, *(vm for vm in first if vm.vm not in known)], kernel, rounds=2)


@given(STATES, STATES, st.integers(0, 200))
def test_a_crash_after_any_operation_changes_nothing_in_the_end(
    first: list[DesiredVm], second: list[DesiredVm], crash: int
) -> None:
    known = {vm.vm for vm in second}
    wanted = [*second, *(vm for vm in first if vm.vm not in known)]
    kernel = a_kernel_on_a_segment()
    converge(first, kernel)
    for operation in plan(wanted, kernel.actual()).operations[:crash]:
        kernel.carry_out(operation)
    converge(wanted, kernel, rounds=2)


@given(STATES, STATES, st.sets(st.integers(1, 5).map("vm{}".format)))
def test_what_is_only_remembered_is_never_taken_away(
    first: list[DesiredVm], second: list[DesiredVm], remembered: set[str]
) -> None:
    kernel = a_kernel_on_a_segment()
    converge(first, kernel)
    before = {route.prefix for route in kernel.routes}
    wanted = [vm for vm in second if vm.presence.is_announced]
    for _ in range(2):
        for operation in plan(wanted, kernel.actual(), remembered=remembered).operations:
            kernel.carry_out(operation)
    assert plan(wanted, kernel.actual(), remembered=remembered).operations == ()
    kept = {prefix for vm in wanted if vm.vm in remembered for prefix in vm.prefixes()}
    assert kept & before <= {route.prefix for route in kernel.routes}


@given(CLASHING)
def test_no_address_is_ever_routed_twice(desired: list[DesiredVm]) -> None:
    kernel = SimulatedKernel()
    carry_out(desired, kernel)
    prefixes = [route.prefix for route in kernel.routes]
    assert len(prefixes) == len(set(prefixes))
