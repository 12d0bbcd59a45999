"""What is planned for ports in a bridge, and for the nodes that have one."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmfabric.contract.cluster import Upstream, Virtualization
from vmfabric.contract.dataplane import ROUTE_METRIC, SUBNET_METRIC
from vmfabric.contract.desired import DesiredVm, Presence, Routed, RoutingNode, Switched, SwitchingNode
from vmfabric.node_agent.domain import naming
from vmfabric.node_agent.domain.actual import HostRoute, Link, Proxy
from vmfabric.node_agent.domain.explanation import explain, explain_node
from vmfabric.node_agent.domain.plan import Plan, plan
from vmfabric.node_agent.domain.port import LINK_GROUP, interface_of
from vmfabric.node_agent.facts import own_addresses
from vmfabric.node_agent.samples import a_routing_node, a_switching_node, a_vm
from vmfabric.node_agent.simulated import SimulatedKernel, an_uplink

ROUTED, SWITCHED = Routed(bridge="vmbr0"), Switched(bridge="vmbr0")
PORT = naming.port_name("msk", "vm1")


def a_kernel() -> SimulatedKernel:
    return SimulatedKernel(uplinks={"uplink": an_uplink(ip_interface("192.0.2.1/24"))})


def a_kernel_with_a_bridge() -> SimulatedKernel:
    """As of an operator."""
    kernel = a_kernel()
    kernel.uplinks["vmbr0"] = replace(an_uplink(ip_interface("192.0.2.1/24")), name="vmbr0", index=2, kind="bridge")
    return kernel


def planned(kernel: SimulatedKernel, node: SwitchingNode | RoutingNode, *vms: DesiredVm) -> Plan:
    return plan(vms, kernel.actual(), node=node)


def words(kernel: SimulatedKernel, node: SwitchingNode | RoutingNode, *vms: DesiredVm) -> list[str]:
    return [str(operation) for operation in planned(kernel, node, *vms).operations]


def carry_out(kernel: SimulatedKernel, node: SwitchingNode | RoutingNode, *vms: DesiredVm) -> None:
    for operation in planned(kernel, node, *vms).operations:
        kernel.carry_out(operation)


def sentences(kernel: SimulatedKernel, node: SwitchingNode | RoutingNode, *vms: DesiredVm) -> list[str]:
    return [problem.sentence for problem in planned(kernel, node, *vms).problems]


def test_a_switched_port_joins_its_bridge_behind_its_rules_and_is_routed_nowhere() -> None:
    node = a_switching_node(uplink=None)
    assert words(a_kernel_with_a_bridge(), node, a_vm(1, wiring=SWITCHED)) == [
        f"create TAP {PORT}",
        f"set alias of {PORT} to vmfabric:msk/vm1",
        f"give {PORT} the alternative name vm1_net0",
        f"set ipv6/disable_ipv6 of {PORT} to 1",
        "load nftables table netdev vmfabric",
        f"load anti-spoofing of {PORT}",
        f"put {PORT} into vmbr0",
        f"set {PORT} up",
    ]


def test_a_routing_node_makes_its_bridge_before_the_ports_and_answers_for_them_on_the_link() -> None:
    node = a_routing_node(upstream=Upstream.ON_LINK)
    todo = words(a_kernel(), node, a_vm(1, wiring=ROUTED))
    assert todo.index("create bridge vmbr0") < todo.index(f"create TAP {PORT}") < todo.index(f"put {PORT} into vmbr0")
    assert todo.index(f"put {PORT} into vmbr0") < todo.index(f"set {PORT} isolated") < todo.index(f"set {PORT} up")
    assert todo[todo.index(f"set {PORT} up") + 1 :] == [
        "add route 10.0.0.0/24 to vmbr0, metric 18700",
        "add route 2001:db8::/64 to lo, metric 186",
        "answer for 2001:db8::ffff on uplink",
        "add route 10.0.0.1/32 to vmbr0",
        "add route 2001:db8::1/128 to vmbr0",
        "answer for 10.0.0.1 on uplink",
        "answer for 2001:db8::1 on uplink",
    ]
    assert "let only frames from 02:00:00:00:00:fe out of uplink, and nothing for a DHCP server in" in todo
    assert "set ipv6/proxy_ndp of uplink to 1" in todo


def test_where_the_provider_routes_to_the_node_nobody_is_answered_for() -> None:
    assert not [it for it in words(a_kernel(), a_routing_node(), a_vm(1, wiring=ROUTED)) if "answer for" in it]


def test_a_routed_vm_that_goes_takes_its_routes_and_answers_and_leaves_the_bridge() -> None:
    kernel, node = a_kernel(), a_routing_node(upstream=Upstream.ON_LINK)
    carry_out(kernel, node, a_vm(1, wiring=ROUTED), a_vm(2, wiring=ROUTED))
    gone = a_vm(1, wiring=ROUTED, presence=Presence.ABSENT)
    assert words(kernel, node, gone, a_vm(2, wiring=ROUTED)) == [
        "remove route 10.0.0.1/32 from vmbr0",
        "remove route 2001:db8::1/128 from vmbr0",
        "answer for 10.0.0.1 on uplink no more",
        "answer for 2001:db8::1 on uplink no more",
        f"set {PORT} down",
        f"remove anti-spoofing of {PORT}",
        f"delete {PORT}",
    ]
    carry_out(kernel, node, gone, a_vm(2, wiring=ROUTED))
    assert words(kernel, node, gone, a_vm(2, wiring=ROUTED)) == []
    assert set(kernel.links) == {"vmbr0", naming.port_name("msk", "vm2")}


def test_an_address_that_has_become_another_vms_stays_that_ones_while_the_first_is_gone() -> None:
    kernel, node = a_kernel(), a_routing_node(upstream=Upstream.ON_LINK)
    carry_out(kernel, node, a_vm(1, wiring=ROUTED, addresses=("10.0.0.9",)))
    gone = a_vm(1, wiring=ROUTED, addresses=("10.0.0.9",), presence=Presence.ABSENT)
    now = a_vm(2, wiring=ROUTED, addresses=("10.0.0.9",))
    for _ in range(2):
        carry_out(kernel, node, gone, now)
    assert words(kernel, node, gone, now) == []
    assert HostRoute(ip_network("10.0.0.9/32"), "vmbr0", ROUTE_METRIC) in kernel.routes
    assert Proxy(ip_address("10.0.0.9"), "uplink") in kernel.proxies


@pytest.mark.parametrize("ipv6", ["2001:db8::fffe/64", "2001:db8:1::1/64", None])
def test_a_gateway_that_is_the_nodes_no_more_is_answered_for_no_more(ipv6: str | None) -> None:
    kernel, node = a_kernel(), a_routing_node(upstream=Upstream.ON_LINK)
    carry_out(kernel, node, a_vm(1, wiring=ROUTED))
    other = node.model_copy(update={"ipv6": ipv6 and ip_interface(ipv6)})
    carry_out(kernel, other, a_vm(1, wiring=ROUTED))
    gateway = {Proxy(ip_interface(ipv6).ip, "uplink")} if ipv6 else set()
    assert kernel.proxies == gateway | {Proxy(ip_address(it), "uplink") for it in ("10.0.0.1", "2001:db8::1")}


def test_a_former_gateway_that_an_older_agent_has_left_behind_is_answered_for_no_more() -> None:
    kernel, node = a_kernel(), a_routing_node(upstream=Upstream.ON_LINK)
    carry_out(kernel, node)
    kernel.proxies |= {Proxy(ip_address(it), "uplink") for it in ("2001:db8::fffe", "10.0.0.77")}
    carry_out(kernel, node)
    assert kernel.proxies == {Proxy(ip_address("2001:db8::ffff"), "uplink")}


def test_a_vm_that_nobody_speaks_of_is_answered_for_as_long_as_it_is_routed_to() -> None:
    kernel, node = a_kernel(), a_routing_node(upstream=Upstream.ON_LINK)
    carry_out(kernel, node, a_vm(1, wiring=ROUTED))
    before = set(kernel.proxies)
    carry_out(kernel, node)
    assert kernel.proxies == before


def test_a_node_that_is_routed_to_from_now_on_answers_for_nobody_any_more() -> None:
    kernel, node = a_kernel(), a_routing_node(upstream=Upstream.ON_LINK)
    carry_out(kernel, node, a_vm(1, wiring=ROUTED))
    assert "set ipv6/proxy_ndp of uplink to 0" in words(kernel, a_routing_node(), a_vm(1, wiring=ROUTED))
    carry_out(kernel, a_routing_node(), a_vm(1, wiring=ROUTED))
    assert kernel.proxies == set()


def test_a_strangers_proxy_entry_stays() -> None:
    kernel, node = a_kernel(), a_routing_node(upstream=Upstream.ON_LINK)
    kernel.proxies.add(Proxy(ip_address("192.0.2.99"), "uplink"))
    carry_out(kernel, node, a_vm(1, wiring=ROUTED))
    carry_out(kernel, node, a_vm(1, wiring=ROUTED, presence=Presence.ABSENT))
    assert Proxy(ip_address("192.0.2.99"), "uplink") in kernel.proxies


def test_another_subnet_replaces_the_old_one() -> None:
    kernel, node = a_kernel(), a_routing_node()
    carry_out(kernel, node)
    other = node.model_copy(update={"subnets": (ip_network("10.1.0.0/24"),)})
    assert words(kernel, other) == [
        "remove route 10.0.0.0/24 from vmbr0",
        "add route 10.1.0.0/24 to vmbr0, metric 18700",
    ]


def test_what_is_the_providers_too_stays_reachable() -> None:
    kernel = a_kernel()
    own = frozenset(map(ip_interface, ("192.0.2.1/24", "2001:db8::5/64")))
    kernel.uplinks["uplink"] = replace(kernel.uplinks["uplink"], addresses=own)
    carry_out(kernel, a_routing_node())
    assert not [route for route in kernel.routes if route.prefix == ip_network("2001:db8::/64")]


@pytest.mark.parametrize(("subnet", "leads_to"), [("10.0.0.1/32", "vmbr0"), ("2001:db8:1::1/128", "lo")])
def test_a_subnet_of_one_address_and_its_vm_have_a_route_each_and_the_vms_is_preferred(
    subnet: str, leads_to: str
) -> None:
    kernel, prefix = a_kernel(), ip_network(subnet)
    node = a_routing_node().model_copy(update={"subnets": (prefix,)})
    vm = a_vm(1, wiring=ROUTED, addresses=(subnet.partition("/")[0],))
    carry_out(kernel, node, vm)
    found = sorted((route.metric, route.interface) for route in kernel.routes if route.prefix == prefix)
    assert found == [(ROUTE_METRIC, "vmbr0"), (SUBNET_METRIC, leads_to)]
    assert words(kernel, node, vm) == []


@pytest.mark.parametrize("node", [a_switching_node(uplink=None), a_routing_node()])
def test_a_bridged_port_that_is_right_is_explained(node: SwitchingNode | RoutingNode) -> None:
    is_switching = isinstance(node, SwitchingNode)
    vm = a_vm(1, wiring=SWITCHED if is_switching else ROUTED)
    kernel = a_kernel_with_a_bridge() if is_switching else a_kernel()
    carry_out(kernel, node, vm)
    found = planned(kernel, node, vm)
    said = [finding.sentence for finding in explain("vm1", vm, kernel.actual(), found)]
    way = "a port of vmbr0" if is_switching else "routes 10.0.0.1/32, 2001:db8::1/128 lead to vmbr0"
    assert any(way in sentence for sentence in said), said


def test_a_switching_node_is_made_no_router() -> None:
    assert not [it for it in words(a_kernel_with_a_bridge(), a_switching_node(uplink=None)) if "forward" in it]


def test_the_nodes_addresses_are_its_own_in_a_bridge_too() -> None:
    kernel = a_kernel_with_a_bridge()
    kernel.uplinks["vmbr0"] = replace(kernel.uplinks["vmbr0"], alias=naming.BRIDGE_ALIAS)
    kernel.uplinks["uplink"] = replace(kernel.uplinks["uplink"], addresses=frozenset())
    assert list(own_addresses(kernel.actual())) == ["192.0.2.1"]


CHANGES: dict[str, dict[str, object]] = {
    f"put {PORT} into vmbr0": {"master": None, "isolated": False},
    f"set {PORT} isolated": {"isolated": False},
    f"set MAC of {PORT} to fe:00:00:00:00:01": {"mac": "02:00:00:00:00:01"},
    f"set ipv6/disable_ipv6 of {PORT} to 1": {"sysctls": {}},
    f"remove address 10.9.9.9/24 from {PORT}": {"addresses": frozenset({ip_interface("10.9.9.9/24")})},
    f"set {PORT} up": {"up": False},
}


@pytest.mark.parametrize("repair", CHANGES)
def test_what_somebody_changed_on_a_port_is_put_back(repair: str) -> None:
    kernel, node = a_kernel(), a_routing_node()
    vms = a_vm(1, wiring=ROUTED), a_vm(2, wiring=ROUTED)
    carry_out(kernel, node, *vms)
    kernel.links[PORT] = replace(kernel.links[PORT], **CHANGES[repair])  # type: ignore[arg-type]
    operations = planned(kernel, node, *vms).operations
    assert repair in map(str, operations)
    assert {operation.vm for operation in operations} == {"vm1"}


def test_a_bridge_that_somebody_deletes_comes_back_with_its_ports() -> None:
    kernel, node = a_kernel(), a_routing_node()
    carry_out(kernel, node, a_vm(1, wiring=ROUTED))
    kernel.delete_link("vmbr0")
    carry_out(kernel, node, a_vm(1, wiring=ROUTED))
    assert words(kernel, node, a_vm(1, wiring=ROUTED)) == []
    assert kernel.links[PORT].master == "vmbr0"


def test_a_bridge_of_ours_is_no_orphan_while_the_nodes_values_are_not_known() -> None:
    kernel = a_kernel()
    carry_out(kernel, a_routing_node())
    assert plan([], kernel.actual()).orphans == ()


def a_strangers(kind: str) -> Link:
    return replace(an_uplink(ip_interface("198.51.100.1/24")), name="vmbr0", index=9, kind=kind, alias="mine")


def a_port_of_vmbr0(name: str, kind: str | None, *, carrier: bool) -> Link:
    return replace(a_strangers("bridge"), name=name, index=20, kind=kind, master="vmbr0", carrier=carrier)


@pytest.mark.parametrize(
    ("node", "links", "said"),
    [
        (a_routing_node(), {}, "the node's uplink should be uplink, and there is no such link here"),
        (
            a_routing_node(),
            {"uplink": an_uplink(ip_interface("198.51.100.1/24"))},
            "192.0.2.1, which is its VMs' gateway, should be on its uplink uplink, which has 198.51.100.1/24",
        ),
        (
            a_routing_node(),
            {"uplink": replace(an_uplink(ip_interface("192.0.2.1/24")), master="br0")},
            "the uplink uplink is a port of br0",
        ),
        (
            a_routing_node(),
            {"uplink": an_uplink(ip_interface("192.0.2.1/24")), "vmbr0": a_strangers("veth")},
            "vmbr0 should be this node's bridge, but another link has this name (kind veth, alias mine)",
        ),
        (
            a_routing_node(),
            {"uplink": replace(an_uplink(ip_interface("192.0.2.1/24")), carrier=False)},
            "the uplink uplink has no carrier: is its cable in, and the switch's port up?",
        ),
        (
            a_switching_node(uplink=None),
            {},
            "bridge vmbr0 should be this node's own, since",
        ),
        (
            a_switching_node(uplink=None),
            {"vmbr0": replace(a_strangers("bridge"), up=False)},
            "bridge vmbr0, which is this node's own, is down: `ip link set vmbr0 up`",
        ),
        (
            a_switching_node(uplink=None),
            {"vmbr0": a_strangers("bridge"), "bond0": a_port_of_vmbr0("bond0", "bond", carrier=False)},
            "the uplink bond0 has no carrier: is its cable in, and the switch's port up?",
        ),
        (
            a_switching_node(uplink=None),
            {
                "vmbr0": a_strangers("bridge"),
                "eth0": a_port_of_vmbr0("eth0", None, carrier=False),
                "eth1": a_port_of_vmbr0("eth1", None, carrier=False),
                "tap7": a_port_of_vmbr0("tap7", "tun", carrier=True),
            },
            "the uplinks eth0 and eth1 have no carrier",
        ),
        (
            a_switching_node(),
            {"uplink": replace(an_uplink(ip_interface("192.0.2.1/24")), carrier=False)},
            "the uplink uplink has no carrier",
        ),
    ],
)
def test_what_is_in_the_way_of_a_node_is_said(
    node: SwitchingNode | RoutingNode, links: dict[str, Link], said: str
) -> None:
    kernel = SimulatedKernel(uplinks=dict(links))
    [finding] = explain_node(planned(kernel, node))
    assert (finding.about, said in finding.sentence) == ("node", True)
    vm = a_vm(1, wiring=SWITCHED)
    of_vm = explain("vm1", vm, kernel.actual(), planned(kernel, node, vm))
    assert finding.sentence in [it.sentence for it in of_vm if it.about == "node"]
    carry_out(kernel, node)
    assert {name: replace(link, sysctls={}) for name, link in kernel.uplinks.items()} == links


@pytest.mark.parametrize(
    "ports",
    [
        [],
        [a_port_of_vmbr0("eth0", None, carrier=False), a_port_of_vmbr0("eth1", None, carrier=True)],
        [a_port_of_vmbr0("uplink", "veth", carrier=True)],
        [replace(a_port_of_vmbr0("vnet1", "tun", carrier=False), group=LINK_GROUP)],
    ],
    ids=["without ports", "one uplink of two is enough", "a veth", "a VM's port is no uplink"],
)
def test_nothing_is_in_the_way_of_an_operators_bridge_that_leads_out(ports: list[Link]) -> None:
    kernel = SimulatedKernel(uplinks={link.name: link for link in (a_strangers("bridge"), *ports)})
    assert sentences(kernel, a_switching_node(uplink=None)) == []


@pytest.mark.parametrize(
    ("wiring", "said"),
    [
        (Switched(bridge="br9"), "the VM's port should be in bridge br9, and there is no such bridge here"),
        (Switched(bridge="vmbr0", vlan=100), "the VM's network has VLAN 100"),
    ],
)
def test_what_is_in_the_way_of_a_vm_is_said_and_stops_no_other(wiring: Switched, said: str) -> None:
    kernel, node = a_kernel_with_a_bridge(), a_switching_node(uplink=None)
    vms = a_vm(1, wiring=wiring), a_vm(2, wiring=SWITCHED)
    [sentence] = sentences(kernel, node, *vms)
    assert said in sentence
    carry_out(kernel, node, *vms)
    assert set(kernel.links) == {naming.port_name("msk", "vm2")}


@given(st.from_regex(r"\A[0-9a-f][02468ace](:[0-9a-f]{2}){5}\Z"))
def test_a_port_never_has_its_guests_mac(mac: str) -> None:
    port = naming.port_mac(mac)
    assert port != mac
    assert port[3:] == mac[3:]


@given(st.lists(st.from_regex(r"\A[a-z][a-z0-9-]{0,62}\Z"), max_size=20, unique=True))
def test_names_of_ports_fit_the_kernel_and_stay_apart(vms: list[str]) -> None:
    names = {naming.port_name("msk", vm) for vm in vms}
    assert len(names) == len(vms)
    assert all(len(name) <= 15 and name.startswith("vnet") for name in names)


SOME_VMS = st.lists(
    st.builds(
        a_vm,
        st.integers(1, 4),
        presence=st.sampled_from(list(Presence)),
        virtualization=st.sampled_from(list(Virtualization)),
        mtu=st.sampled_from([1400, 1500]),
        wiring=st.just(ROUTED),
    ),
    max_size=4,
    unique_by=lambda vm: vm.vm,
)


@given(SOME_VMS, SOME_VMS, st.sampled_from(list(Upstream)), st.sampled_from(list(Upstream)), st.integers(0, 80))
def test_a_routing_node_gets_from_any_state_to_any_other_whatever_crash_is_between(
    first: list[DesiredVm], second: list[DesiredVm], was: Upstream, now: Upstream, crash: int
) -> None:
    kernel = a_kernel()
    carry_out(kernel, a_routing_node(upstream=was), *first)
    assert words(kernel, a_routing_node(upstream=was), *first) == []
    known = {vm.vm for vm in second}
    wanted = [*second, *(vm for vm in first if vm.vm not in known)]
    node = a_routing_node(upstream=now)
    for operation in planned(kernel, node, *wanted).operations[:crash]:
        kernel.carry_out(operation)
    for _ in range(2):
        carry_out(kernel, node, *wanted)
    assert words(kernel, node, *wanted) == []
    answered = {str(it.address) for it in kernel.proxies}
    here = {str(address) for vm in wanted if vm.presence.is_announced for address in vm.addresses}
    assert answered == (here | {"2001:db8::ffff"} if now is Upstream.ON_LINK else set())
    stays = {interface_of(vm) for vm in wanted if vm.presence is not Presence.ABSENT}
    assert kernel.links.keys() == stays | {"vmbr0"}
