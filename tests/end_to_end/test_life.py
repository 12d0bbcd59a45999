"""VMs come, are reachable, and go without a trace."""

import asyncio
import json

import pytest

from outside.cluster import CLUSTER, Cluster, address_of
from vmfabric.contract.addresses import Family
from vmfabric.contract.admin import Explanation, GetVm, VmPhase, VmState
from vmfabric.contract.iface import IfaceReady, IfaceRemoved
from vmfabric.contract.ip import IpAllocated, IpExhausted, IpReleased
from vmfabric.contract.route import RouteAnnounced, RouteWithdrawn
from vmfabric.contract.vm import VmDeleted, VmFailed, VmPlaced, VmReady
from vmfabric.lab import frr
from vmfabric.lab.hosts import bgp_routes, run_on

pytestmark = pytest.mark.lab


async def test_a_vm_answers_from_the_core_over_both_families_and_leaves_nothing(cluster: Cluster) -> None:
    await cluster.request("vm1")
    ready = await cluster.ready("vm1")
    await cluster.reachable(ready)
    assert {allocated.family for allocated in ready.addresses} == set(Family)
    routes = bgp_routes(cluster.lab, "core")
    assert {str(prefix) for prefix in routes} == {f"{it.address}/{it.family.host_length}" for it in ready.addresses}
    await cluster.delete("vm1")
    await cluster.no_routes()


async def test_the_way_back_is_in_order(cluster: Cluster) -> None:
    await cluster.request("vm1")
    await cluster.ready("vm1")
    await cluster.delete("vm1")
    heard = [type(heard.event) for heard in cluster.outside.heard]
    order = [heard.index(kind) for kind in (RouteWithdrawn, IfaceRemoved, IpReleased, VmDeleted)]
    assert order == sorted(order)
    assert [heard.count(kind) for kind in (IfaceReady, RouteAnnounced, RouteWithdrawn, IfaceRemoved)] == [1, 1, 1, 1]


async def test_every_fact_belongs_to_the_trace_of_its_request(cluster: Cluster) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    body = {"cluster": CLUSTER, "vm": "vm1", "cpu": 1, "memory_mb": 64, "disk_gb": 1}
    await cluster.outside.client.publish(
        "vm.requested", json.dumps(body).encode(), headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    )
    await cluster.ready("vm1")
    facts = (VmPlaced, IpAllocated, IfaceReady, RouteAnnounced, VmReady)
    traces = {
        heard.headers["traceparent"].split("-")[1]
        for heard in cluster.outside.heard
        if isinstance(heard.event, facts)
    }
    assert traces == {trace}


async def test_fifty_vms_at_once_all_answer(cluster: Cluster) -> None:
    names = [f"vm{number}" for number in range(50)]
    for name in names:
        await cluster.request(name)
    ready = [await cluster.ready(name) for name in names]
    addresses = [allocated.address for it in ready for allocated in it.addresses]
    assert len(set(addresses)) == 100
    assert {it.node for it in ready} == {"n1", "n2"}
    slots = asyncio.Semaphore(8)

    async def answers(it: VmReady) -> None:
        async with slots:
            await cluster.reachable(it)

    await asyncio.gather(*map(answers, ready))


async def test_both_reflectors_have_the_route_with_its_community(cluster: Cluster) -> None:
    await cluster.request("vm1")
    ready = await cluster.ready("vm1")
    for reflector in cluster.lab.topology.reflectors:
        for allocated in ready.addresses:
            command = f"show bgp {allocated.family} unicast {allocated.address}/{allocated.family.host_length} json"
            shown = json.loads(frr.vtysh(cluster.lab.topology, reflector, command))
            assert shown["paths"][0]["community"]["list"] == ["65000:100"]


async def test_the_same_request_twice_makes_one_vm(cluster: Cluster) -> None:
    await cluster.request("vm1")
    await cluster.request("vm1")
    await cluster.ready("vm1")
    await cluster.request("vm1")
    async with asyncio.timeout(10):
        while len(cluster.outside.events(VmReady, vm="vm1")) < 2:
            await asyncio.sleep(0.02)
    assert len(cluster.outside.events(VmPlaced, vm="vm1")) == 1
    first, *others = cluster.outside.events(VmReady, vm="vm1")
    assert all(other == first for other in others)


async def test_a_conflicting_request_leaves_the_vm_alone(cluster: Cluster) -> None:
    await cluster.request("vm1")
    ready = await cluster.ready("vm1")
    await cluster.request("vm1", cpu=2)
    assert (await cluster.failed("vm1")).code == "conflict"
    await cluster.reachable(ready)


async def test_a_delete_that_overtakes_its_create(cluster: Cluster) -> None:
    await cluster.request("vm1")
    await cluster.delete("vm1")
    assert not cluster.outside.events(VmFailed)


async def test_old_events_after_the_delete_bring_nothing_back(cluster: Cluster) -> None:
    await cluster.request("vm1")
    await cluster.ready("vm1")
    await cluster.delete("vm1")
    kinds = (VmPlaced, IpAllocated, IfaceReady, RouteAnnounced)
    old = [heard for heard in cluster.outside.heard if isinstance(heard.event, kinds)]
    assert len(old) >= 4
    for heard in old:
        await cluster.outside.publish(heard.subject, heard.body)
    await cluster.request("vm2")
    await cluster.reachable(await cluster.ready("vm2"))
    await cluster.delete("vm2")
    await cluster.no_routes()


async def test_a_released_address_rests_before_it_is_given_again(cluster: Cluster) -> None:
    await cluster.request("vm1")
    first = address_of(await cluster.ready("vm1"), Family.IPV4)
    await cluster.delete("vm1")
    await cluster.request("vm2")
    assert address_of(await cluster.ready("vm2"), Family.IPV4) != first
    explained = await cluster.outside.ask("ip.explain", {"address": str(first)}, Explanation)
    assert explained.record is not None
    assert (explained.record.state, explained.record.vm) == ("quarantined", "vm1")
    assert [entry.what for entry in explained.history][:2] == ["released", "allocated"]


async def test_an_exhausted_pool_refuses_and_holds_nothing(cluster: Cluster) -> None:
    wish = [{"family": "ipv4", "pool": "tiny"}]
    for number in range(3):
        await cluster.request(f"vm{number}", addresses=wish)
    failed = await cluster.outside.wait_for(VmFailed, seconds=30)
    assert (failed.step, failed.code, failed.held) == ("allocate", "pool_exhausted", ())
    assert cluster.outside.events(IpExhausted, pool="tiny")
    others = {"vm0", "vm1", "vm2"} - {failed.vm}
    for vm in others:
        await cluster.reachable(await cluster.ready(vm))


async def test_containers_get_a_veth(cluster: Cluster) -> None:
    await cluster.apply(virtualization="lxd")
    await cluster.request("vm1")
    ready = await cluster.ready("vm1")
    await cluster.reachable(ready)
    event = (cluster.outside.events(IfaceReady))[0]
    assert event.guest_interface is not None
    assert "veth" in run_on(cluster.lab, ready.node, "ip", "-d", "link", "show", event.interface)
    await cluster.delete("vm1")
    await cluster.apply()


async def test_a_long_name_has_a_short_interface_and_its_full_name_beside_it(cluster: Cluster) -> None:
    name = "a-vm-with-a-name-of-sixty-three-characters-which-is-the-longest"
    assert len(name) == 63
    await cluster.request(name)
    ready = await cluster.ready(name)
    await cluster.reachable(ready)
    assert f"altname {name}_net0" in run_on(cluster.lab, ready.node, "ip", "link", "show", f"{name}_net0")


async def test_what_a_vm_waits_for_can_be_asked(cluster: Cluster) -> None:
    await cluster.request("vm1")
    await cluster.ready("vm1")
    state = await cluster.outside.ask("vm.get", GetVm(cluster=CLUSTER, vm="vm1").model_dump(), VmState)
    assert (state.phase, state.waiting_for) == (VmPhase.READY, None)
