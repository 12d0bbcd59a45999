"""The announcer with a real FRR, two reflectors and a core."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import pytest

from vmfabric.bgp_announcer.announcer import Announcer
from vmfabric.bgp_announcer.domain.configuration import wanted
from vmfabric.bgp_announcer.domain.plan import plan, renewal
from vmfabric.bgp_announcer.explaining import Explaining
from vmfabric.bgp_announcer.frr.adapter import VtyshFrr
from vmfabric.bgp_announcer.frr.vtysh import Vtysh
from vmfabric.bgp_announcer.ports import FrrError
from vmfabric.contract.addresses import Family, parse_host
from vmfabric.contract.bgp import Reflector
from vmfabric.contract.dataplane import (
    FORWARD_METRIC,
    KERNEL_PROTOCOL,
    LOCAL_PREFERENCE,
    PREFERRED_LOCAL_PREFERENCE,
    PREFERRED_METRIC,
    ROUTE_METRIC,
)
from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.contract.errors import VmfabricError
from vmfabric.contract.explanation import ReflectedRoute, ShowReflected
from vmfabric.contract.route import BgpSessionDown, BgpSessionUp, RouteAnnounced, RouteLost, RouteWithdrawn
from vmfabric.lab import frr
from vmfabric.lab.hosts import bgp_routes
from vmfabric.lab.lab import Lab
from vmfabric.lab.monitor import routes_deleted
from vmfabric.lab.programs import run
from vmfabric.reconcile.loop import Dirty

from .conftest import POOLS, Bus, View, a_node, a_vm, an_announcer, pools
from .test_configuration import CASES

pytestmark = pytest.mark.lab

ALL = Dirty(frozenset(), all=True)
OURS = ("proto", str(KERNEL_PROTOCOL), "metric", str(ROUTE_METRIC))
FORWARDING = ("proto", str(KERNEL_PROTOCOL), "metric", str(FORWARD_METRIC))
PREFERRED = ("proto", str(KERNEL_PROTOCOL), "metric", str(PREFERRED_METRIC))


class Node:
    """n1 of the lab, its kernel routes set by the test as the node-agent would."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.view, self.bus = View(), Bus()
        self.vtysh = Vtysh(lab.namespace("n1"))
        self.frr = VtyshFrr(self.vtysh)
        self.directory = directory
        self.announcer = self.start()

    def start(self) -> Announcer:
        return an_announcer(self.view, self.frr, self.bus, self.directory)

    def ip(self, *words: str) -> None:
        run("ip", "-n", self.lab.namespace("n1"), *words)

    def route(self, vm: DesiredVm, *mark: str) -> None:
        for prefix in vm.prefixes():
            self.ip("route", "add", str(prefix), "dev", "vm_net0", *(mark or OURS))

    def unroute(self, vm: DesiredVm, *mark: str) -> None:
        for prefix in vm.prefixes():
            self.ip("route", "del", str(prefix), *(mark or OURS))

    def preferences(self) -> list[int]:
        """Of the routes of the last announcement."""
        fact = self.bus.of(RouteAnnounced)[-1]
        assert isinstance(fact, RouteAnnounced)
        return [route.local_preference for route in fact.routes]

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = 15) -> None:
        """Reconcile until it is so."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        await self.announcer.look_at_sessions()
                        await self.announcer.step(ALL)
                    except VmfabricError:  # FRR is starting
                        await asyncio.sleep(0.1)
                    if condition():
                        return
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"not within {seconds} s: {what}; facts: {self.bus.facts}")

    async def announced(self, vm: DesiredVm) -> None:
        await self.until(
            lambda: any(
                isinstance(f, RouteAnnounced) and f.vm == vm.vm and not f.routes[0].missing for f in self.bus.facts
            ),
            f"{vm.vm} announced",
        )

    def core(self) -> set[str]:
        return {str(prefix) for prefix in bgp_routes(self.lab, "core")}

    def core_prefers(self, prefix: str, preference: int) -> bool:
        return f'"locPrf":{preference}' in self.show("core", f"show bgp ipv4 unicast {prefix} json")

    def show(self, host: str, command: str) -> str:
        router = next(router for router in self.lab.topology.routers if router.name == host)
        return frr.vtysh(self.lab.topology, router, command)

    def are_listed(self, block: str, entries: list[str]) -> bool:
        """Whether the prefix lists say this of a block and nothing else."""
        lines = self.show("n1", "show running-config").splitlines()
        return [f"permit {block}{line.partition(block)[2]}" for line in lines if f"permit {block}" in line] == entries

    def established(self) -> dict[str, int]:
        peers = json.loads(self.show("n1", "show bgp ipv4 unicast summary json"))["peers"]
        return {peer: state["connectionsEstablished"] for peer, state in peers.items()}


@pytest.fixture
async def node(lab: Lab, tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(lab, tmp_path)
    node.ip("link", "add", "vm_net0", "type", "veth", "peer", "name", "vm_g0")
    node.ip("link", "set", "vm_net0", "up")
    await node.until(lambda: len(node.bus.of(BgpSessionUp)) == 2, "both sessions")
    yield node
    node.ip("link", "del", "vm_net0")
    await node.vtysh.close()
    run("vtysh", "-N", lab.namespace("n1"), "-d", "bgpd", "-c", "configure terminal", "-c", "no router bgp 65000")


async def test_a_route_is_announced_with_its_community_to_both_reflectors(node: Node) -> None:
    vm = a_vm()
    node.view.want(vm)
    node.route(vm)
    await node.announced(vm)
    fact = node.bus.of(RouteAnnounced)[-1]
    assert isinstance(fact, RouteAnnounced)
    assert [route.communities for route in fact.routes] == [("65000:100",), ("65000:600",)]
    await node.until(lambda: node.core() == {str(prefix) for prefix in vm.prefixes()}, "the core has both")
    for reflector in ("rr1", "rr2"):
        assert '"65000:100"' in node.show(reflector, "show bgp ipv4 unicast 198.51.100.7/32 json")
        assert '"65000:600"' in node.show(reflector, "show bgp ipv6 unicast 2001:db8:100::7/128 json")


async def test_of_a_delegated_prefix_the_whole_is_announced_and_not_the_address_that_leads_to_it(node: Node) -> None:
    block, prefix, address = "2001:db8:100::/48", "2001:db8:100:7::/64", parse_host("2001:db8:100:7::1")
    node.view.configure(a_node(), pools(block, lengths={block: 64}))
    vm = a_vm().model_copy(update={"addresses": (address,), "delegated": (ip_network(prefix),)})
    node.view.want(vm)
    node.ip("route", "add", f"{address}/128", "dev", "vm_net0", *OURS)
    node.ip("route", "add", prefix, "via", str(address), "dev", "vm_net0", *OURS)
    await node.announced(vm)
    await node.until(lambda: node.core() == {prefix}, "the core has the prefix and nothing else")


@pytest.mark.parametrize(("before", "after"), [(128, 64), (64, 128), (64, 62)])
async def test_what_a_pool_gives_is_announced_though_it_gave_something_else_before(
    node: Node, before: int, after: int
) -> None:
    block = "2001:db8:200::/56"
    prefix = ip_network("2001:db8:200:80::1/128" if after == 128 else f"2001:db8:200:80::/{after}")
    vm = a_vm().model_copy(
        update={
            "addresses": (parse_host("2001:db8:200:80::1"),),
            "delegated": (prefix,) if after < 128 else (),
        }
    )
    for length in (before, after):
        node.view.configure(a_node(), pools(block, lengths={block: length}))
        listed = [f"permit {block} ge {length}{f' le {length}' if length < 128 else ''}"]
        await node.until(partial(node.are_listed, block, listed), "the list has it")
    node.view.want(vm)
    node.route(vm)
    await node.announced(vm)
    await node.until(lambda: node.core() == {str(prefix)}, "the core has it")


async def test_what_the_reflectors_tell_is_read(node: Node) -> None:
    """FRR's reflectors tell a node its own routes too."""
    vm = a_vm()
    node.view.want(vm)
    node.route(vm)
    await node.announced(vm)
    reflector, (ipv4, ipv6) = parse_host("10.0.0.11"), vm.prefixes()
    explaining = Explaining(node.view, node.frr)
    asked = ShowReflected(prefixes=(ipv4,), next_hops=(parse_host("fd00:fab::1"),))
    async with asyncio.timeout(10):
        while len((told := await explaining.reflected(asked)).routes[reflector]) < 2:
            await asyncio.sleep(0.05)
    assert told.routes[reflector] == (
        ReflectedRoute(prefix=ipv4, next_hop=parse_host("10.0.0.1"), local_preference=LOCAL_PREFERENCE),
        ReflectedRoute(prefix=ipv6, next_hop=parse_host("fd00:fab::1"), local_preference=LOCAL_PREFERENCE),
    )
    neither = await explaining.reflected(ShowReflected(prefixes=(), next_hops=(parse_host("10.0.0.9"),)))
    assert neither.routes == {reflector: (), parse_host("10.0.0.12"): ()}


async def test_a_route_that_goes_is_withdrawn(node: Node) -> None:
    vm = a_vm()
    node.view.want(vm)
    node.route(vm)
    await node.announced(vm)
    node.view.want(a_vm(presence=Presence.WIRED))
    await node.announcer.step(ALL)
    assert not node.bus.of(RouteWithdrawn), "it is still there"
    node.unroute(vm)
    await node.until(lambda: bool(node.bus.of(RouteWithdrawn)), "withdrawn")
    await node.until(lambda: not node.core(), "the core has none")


async def test_a_strangers_better_route_is_said_and_so_is_its_end(node: Node) -> None:
    vm, prefix = a_vm(), "198.51.100.7/32"
    node.view.want(vm)
    node.route(vm)
    await node.announced(vm)
    node.ip("route", "add", "blackhole", prefix, "proto", "static")
    await node.until(lambda: bool(node.bus.of(RouteLost)), "lost")
    lost = node.bus.of(RouteLost)
    assert isinstance(lost[0], RouteLost)
    assert [str(route.prefix) for route in lost[0].routes] == [prefix]
    assert "metric 0, through" in lost[0].routes[0].selected
    node.bus.facts.clear()
    node.ip("route", "del", "blackhole", prefix, "proto", "static")
    await node.announced(vm)
    await node.until(lambda: prefix in node.core(), "the core has it again")
    assert not node.bus.of(RouteLost)


async def test_a_route_is_announced_at_once_although_its_pool_is_new(node: Node) -> None:
    node.view.configure(a_node(), pools("192.0.2.0/24"))
    await node.announcer.step(ALL)
    vm = a_vm()
    node.route(vm)
    node.view.configure(a_node())
    node.view.want(vm)
    begun = time.monotonic()
    await node.announced(vm)
    assert time.monotonic() - begun < 3, "FRR's own delay is 5 s"


async def test_an_empty_frr_proves_no_withdrawal(node: Node) -> None:
    vm = a_vm()
    node.view.want(vm)
    node.route(vm)
    await node.announced(vm)
    node.view.want(a_vm(presence=Presence.WIRED))
    run(
        "vtysh", "-N", node.lab.namespace("n1"), "-d", "bgpd", "-c", "configure terminal", "-c", "no router bgp 65000"
    )
    assert (await node.frr.routes(vm.prefixes()))[vm.prefixes()[0]] is None
    await node.announcer.step(Dirty(frozenset({vm.vm}), all=False))
    assert not node.bus.of(RouteWithdrawn)
    await node.until(lambda: "198.51.100.7/32" in node.core(), "it is there as long as the kernel has it")
    assert not node.bus.of(RouteWithdrawn)
    node.unroute(vm)
    await node.until(lambda: bool(node.bus.of(RouteWithdrawn)), "withdrawn")


async def test_a_preferred_route_becomes_normal_without_a_gap(node: Node) -> None:
    vm, prefix = a_vm(presence=Presence.PREFERRED), "198.51.100.7/32"
    node.view.want(vm)
    node.route(vm, *PREFERRED)
    await node.announced(vm)
    assert node.preferences() == [PREFERRED_LOCAL_PREFERENCE] * 2
    await node.until(lambda: prefix in node.core(), "the core has it")
    node.view.want(a_vm())
    await node.announcer.step(ALL)
    assert len(node.bus.of(RouteAnnounced)) == 1, "it is still preferred"
    with routes_deleted(node.lab, "core") as deleted:
        node.route(vm)
        node.unroute(vm, *PREFERRED)
        await node.until(lambda: node.preferences() == [LOCAL_PREFERENCE] * 2, "announced with the normal preference")
        await node.until(partial(node.core_prefers, prefix, LOCAL_PREFERENCE), "the core knows the normal preference")
    assert deleted == []


async def test_bgpd_asks_for_the_routes_of_the_kernel_anew_and_announces_them_again(node: Node) -> None:
    vm = a_vm()
    node.view.want(vm)
    node.route(vm)
    await node.announced(vm)
    ipv4, ipv6 = vm.prefixes()
    assert [await node.frr.metric(prefix) for prefix in (ipv4, ipv6)] == [ROUTE_METRIC] * 2
    before = await node.frr.running()
    await node.frr.configure(renewal(65000))
    async with asyncio.timeout(10):
        while None in (await node.frr.routes((ipv4, ipv6))).values():
            await asyncio.sleep(0.05)
    assert await node.frr.running() == before
    node.unroute(vm)
    async with asyncio.timeout(10):
        while await node.frr.metric(ipv4) is not None:
            await asyncio.sleep(0.05)


async def test_a_forwarded_route_is_announced_as_before(node: Node) -> None:
    vm, prefix = a_vm(), "198.51.100.7/32"
    node.view.want(vm)
    node.route(vm)
    await node.announced(vm)
    await node.until(lambda: prefix in node.core(), "the core has it")
    with routes_deleted(node.lab, "core") as deleted:
        node.ip(
            "route", "add", prefix, "via", "10.0.0.2", "proto", str(KERNEL_PROTOCOL), "metric", str(FORWARD_METRIC)
        )
        node.view.want(a_vm(presence=Presence.FORWARDED))
        await node.until(lambda: len(node.bus.of(RouteAnnounced)) == 2, "announced, forwarded")
        node.ip("route", "del", prefix, "via", "10.0.0.2")
        node.view.want(a_vm())
        await node.until(lambda: len(node.bus.of(RouteAnnounced)) == 3, "announced, no longer forwarded")
    assert node.preferences() == [LOCAL_PREFERENCE] * 2
    assert deleted == []


async def test_a_strangers_route_and_one_outside_the_pools_are_not_announced(node: Node) -> None:
    ours, theirs = a_vm(1), a_vm(2)
    node.route(ours)
    node.route(theirs, "proto", "static", "metric", "20")
    node.ip("route", "add", "203.0.113.9/32", "dev", "vm_net0", *OURS)
    node.ip("route", "add", "198.51.100.128/25", "dev", "vm_net0", *OURS)
    node.view.want(ours)
    await node.announced(ours)
    await node.until(lambda: "198.51.100.1/32" in node.core(), "ours is there")
    assert node.core() == {"198.51.100.1/32", "2001:db8:100::1/128"}


async def test_a_restart_with_nothing_to_do_writes_and_says_nothing(node: Node) -> None:
    vm = a_vm()
    node.view.want(vm)
    node.route(vm)
    await node.announced(vm)
    await node.until(lambda: bool(node.core()), "the core has it")
    updates = node.show("rr1", "show bgp ipv4 unicast summary json")
    node.bus.facts.clear()
    node.announcer = node.start()
    entered: list[str] = []
    enter = node.vtysh.enter

    async def recorded(script: str) -> None:
        entered.append(script)
        await enter(script)

    node.vtysh.enter = recorded  # type: ignore[method-assign]
    for _ in range(5):
        await node.announcer.look_at_sessions()
        await node.announcer.step(ALL)
    assert (entered, node.bus.facts) == ([], [])
    after = node.show("rr1", "show bgp ipv4 unicast summary json")
    assert json.loads(after)["tableVersion"] == json.loads(updates)["tableVersion"]


async def test_changes_of_community_pools_and_reflectors_reset_no_session(node: Node) -> None:
    vm = a_vm()
    node.view.want(vm)
    node.route(vm)
    await node.announced(vm)
    await node.until(lambda: "198.51.100.7/32" in node.core(), "the core has it")
    before = node.established()
    changed = a_node(community={Family.IPV4: "65000:101", Family.IPV6: "65000:601"})
    node.view.configure(changed, pools("198.51.100.0/24", "2001:db8:100::/64", "203.0.113.0/24"))
    seen: list[bool] = []

    def has_the_new_community() -> bool:
        seen.append("198.51.100.7/32" in node.core())
        return "65000:101" in node.show("rr1", "show bgp ipv4 unicast 198.51.100.7/32 json")

    await node.until(has_the_new_community, "the new community", 20)
    assert all(seen), "the route was never away"
    await node.until(lambda: len(node.bus.of(RouteAnnounced)) > 1, "said again")
    fact = node.bus.of(RouteAnnounced)[-1]
    assert isinstance(fact, RouteAnnounced)
    assert [route.communities for route in fact.routes] == [("65000:101",), ("65000:601",)]
    reflectors = (*changed.reflectors, Reflector(address=parse_host("10.0.0.13"), asn=65000))
    node.view.configure(a_node(reflectors=reflectors))
    await node.until(lambda: "10.0.0.13" in node.established(), "a third neighbour")
    node.view.configure(a_node())
    await node.until(lambda: "10.0.0.13" not in node.established(), "no third neighbour")
    assert node.established() == before


async def test_a_node_that_goes_down_announces_the_same_with_no_preference(node: Node) -> None:
    vm, prefix = a_vm(), "198.51.100.7/32"
    node.view.want(vm)
    node.route(vm)
    await node.announced(vm)
    await node.until(lambda: prefix in node.core(), "the core has it")
    before = node.established()
    with routes_deleted(node.lab, "core") as deleted:
        for going_down, preference in ((True, 0), (False, LOCAL_PREFERENCE)):
            node.bus.facts.clear()
            node.view.configure(a_node(graceful_shutdown=going_down))
            await node.announced(vm)
            assert node.preferences() == [preference] * 2
            await node.until(partial(node.core_prefers, prefix, preference), "the core knows")
            assert ("gracefulShutdown" in node.show("rr1", f"show bgp ipv4 unicast {prefix} json")) == going_down
    assert deleted == []
    assert node.established() == before


async def test_what_somebody_edits_comes_back_without_a_reset(node: Node) -> None:
    vm = a_vm()
    node.view.want(vm)
    node.route(vm)
    await node.announced(vm)
    before = node.established()
    edit = ("configure terminal", "route-map vmfabric-kernel-ipv4 permit 10", "no match metric", "set community 1:1")
    frr.vtysh(node.lab.topology, node.lab.topology.nodes[0], *edit)
    router = ("configure terminal", "router bgp 65000", "address-family ipv6 unicast")
    frr.vtysh(node.lab.topology, node.lab.topology.nodes[0], *router, "no redistribute kernel")
    frr.vtysh(node.lab.topology, node.lab.topology.nodes[0], *router, "no neighbor vmfabric send-community both")
    should = wanted(a_node(), POOLS)
    assert plan(should, await node.frr.running(), 65000)
    for _ in range(2):
        await node.announcer.step(ALL)
    assert not plan(should, await node.frr.running(), 65000, tidy=False)
    await node.until(lambda: "2001:db8:100::7/128" in node.core(), "announced again")
    assert node.established() == before


async def test_a_strangers_lines_stay(node: Node) -> None:
    frr.vtysh(
        node.lab.topology,
        node.lab.topology.nodes[0],
        *(
            "configure terminal",
            "ip prefix-list theirs seq 5 permit 192.0.2.0/24",
            "route-map theirs permit 10",
            "exit",
        ),
        *("router bgp 65000", "neighbor 10.0.0.99 remote-as 64512"),
    )
    node.view.configure(a_node(community={Family.IPV4: "65000:7", Family.IPV6: "65000:7"}))
    await node.announcer.step(ALL)
    texts = {line.text for line in await node.frr.running()}
    assert {"ip prefix-list theirs seq 5 permit 192.0.2.0/24", "neighbor 10.0.0.99 remote-as 64512"} <= texts


async def test_an_frr_that_was_killed_is_configured_again(node: Node) -> None:
    vm = a_vm()
    node.view.want(vm)
    node.route(vm)
    await node.announced(vm)
    router = node.lab.topology.nodes[0]
    frr.kill(node.lab.topology, router, "bgpd")
    with pytest.raises(FrrError):
        await node.frr.running()
    node.bus.facts.clear()
    await node.announcer.look_at_sessions()
    down = node.bus.of(BgpSessionDown)
    assert [it.reason for it in down if isinstance(it, BgpSessionDown)] == [
        "bgpd of this node does not run: start FRR"
    ] * 2
    frr.start_daemon(node.lab.topology, router, "bgpd", node.directory / "frr.log")
    await node.until(lambda: len(node.bus.of(BgpSessionUp)) == 2, "both sessions again")
    await node.until(lambda: "198.51.100.7/32" in node.core(), "announced again")


async def test_an_frr_of_another_as_is_left_alone(node: Node) -> None:
    node.view.configure(a_node(asn=65001, reflectors=(Reflector(address=parse_host("10.0.0.11"), asn=65001),)))
    before = await node.frr.running()
    with pytest.raises(VmfabricError, match="AS 65000"):
        await node.announcer.step(ALL)
    assert await node.frr.running() == before


async def test_a_thousand_routes_are_proven_in_seconds(node: Node, tmp_path: Path) -> None:
    vms = [
        a_vm(1).model_copy(update={"vm": f"vm{number}", "addresses": (parse_host(f"2001:db8:100::{number:x}"),)})
        for number in range(1, 1001)
    ]
    for vm in vms:
        node.view.want(vm)
    batch = tmp_path / "routes"
    batch.write_text("".join(f"route add {vm.prefixes()[0]} dev vm_net0 {' '.join(OURS)}\n" for vm in vms))
    started = time.monotonic()
    node.ip("-6", "-batch", str(batch))
    await node.until(lambda: len(node.bus.of(RouteAnnounced)) >= 1000, "all announced", 30)
    print(f"1000 routes proven in {time.monotonic() - started:.2f} s")
    node.ip("-6", "route", "flush", "proto", str(KERNEL_PROTOCOL))


@pytest.mark.parametrize("case", sorted(CASES))
async def test_frr_takes_every_line_and_shows_it(node: Node, case: str) -> None:
    node.view.configure(*CASES[case])
    for _ in range(3):
        await node.announcer.step(ALL)
    assert plan(wanted(*CASES[case]), await node.frr.running(), 65000, tidy=False) == ()
