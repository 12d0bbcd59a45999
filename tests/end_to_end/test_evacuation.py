"""A node is lost, its VMs begin again on another one, and it returns."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic

import pytest

from outside.cluster import CLUSTER, Cluster
from vmfabric.contract.addresses import Prefix, host_prefix
from vmfabric.contract.admin import Drain
from vmfabric.contract.dataplane import EVACUATED_LOCAL_PREFERENCE, LOCAL_PREFERENCE
from vmfabric.contract.errors import Refused
from vmfabric.contract.vm import VmReady
from vmfabric.lab import faults
from vmfabric.lab.hosts import bgp_routes, run_on

pytestmark = pytest.mark.lab

FENCED = {"cluster": CLUSTER, "node": "n1", "fence": "power-cut"}
NODE_SERVICES = ("node-agent", "bgp-announcer", "hypervisor")


async def ready_on(cluster: Cluster, node: str, names: Sequence[str]) -> list[VmReady]:
    for name in names:
        await cluster.request(name)
    found = [await cluster.ready(name) for name in names]
    return [it for it in found if it.node == node]


@asynccontextmanager
async def looked_at(cluster: Cluster, prefix: Prefix) -> AsyncIterator[list[set[str]]]:
    """The next hops of the prefix, many times a second."""
    seen: list[set[str]] = []

    async def look() -> None:
        while True:
            seen.append(await asyncio.to_thread(cluster.next_hops, prefix))
            await asyncio.sleep(0.05)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()
        await asyncio.wait({looking})


async def preferred(cluster: Cluster, prefix: Prefix, preference: int) -> None:
    async with asyncio.timeout(40):
        while cluster.local_preference(prefix) != preference:
            await asyncio.sleep(0.05)


async def test_the_vms_of_a_dead_node_answer_from_another_and_it_comes_back_without_them(cluster: Cluster) -> None:
    with pytest.raises(Refused, match="not lost: node.drain"):
        await cluster.outside.ask("node.evacuate", FENCED, Drain)
    vms = await ready_on(cluster, "n1", [f"vm{number}" for number in range(10)])
    await cluster.reachable(vms[0])
    prefix = host_prefix(vms[0].addresses[0].address)
    faults.cut_power(cluster.lab, "n1")
    try:
        await cluster.evacuated(vms, node="n1", target="n2")
        started = monotonic()
        for vm in vms:
            await cluster.reachable(vm)
        print(f"{len(vms)} VMs answer {monotonic() - started:.1f} s after the last is ready")
        await preferred(cluster, prefix, EVACUATED_LOCAL_PREFERENCE)
    finally:
        async with looked_at(cluster, prefix) as seen:
            await asyncio.to_thread(faults.restore_power, cluster.lab, "n1")
            await cluster.settled()
            await preferred(cluster, prefix, LOCAL_PREFERENCE)
    n1, n2 = (str(cluster.lab.topology.node(name).ipv4) for name in ("n1", "n2"))
    assert len(seen) > 5
    assert all(hops == {n2} for hops in seen), f"{n1} has announced what is no longer its own"
    for vm in vms:
        await cluster.reachable(vm)
        assert vm.vm not in run_on(cluster.lab, "n1", "ip", "-o", "link", "show")
    await cluster.outside.ask("node.undrain", {"cluster": CLUSTER, "node": "n1"}, Drain)
    await cluster.request("back", node="n1")
    await cluster.reachable(await cluster.ready("back"))


async def test_a_node_that_goes_on_though_it_was_fenced_draws_no_packet(cluster: Cluster) -> None:
    vms = await ready_on(cluster, "n1", ["vm1", "vm2"])
    assert len(vms) == 1
    await cluster.reachable(vms[0])
    prefix = host_prefix(vms[0].addresses[0].address)
    n1, n2 = (str(cluster.lab.topology.node(name).ipv4) for name in ("n1", "n2"))
    assert bgp_routes(cluster.lab, "core")[prefix] == n1
    for service in NODE_SERVICES:
        faults.kill_service(cluster.lab, service, "n1")
    try:
        await cluster.evacuated(vms, node="n1", target="n2")
        await preferred(cluster, prefix, EVACUATED_LOCAL_PREFERENCE)
        assert n1 in cluster.next_hops(prefix), "FRR of the old node still announces it"
        assert bgp_routes(cluster.lab, "core")[prefix] == n2
        await cluster.reachable(vms[0])
    finally:
        for service in NODE_SERVICES:
            await asyncio.to_thread(faults.start_service, cluster.lab, service, "n1")
    await preferred(cluster, prefix, LOCAL_PREFERENCE)
    assert cluster.next_hops(prefix) == {n2}
    await cluster.reachable(vms[0])
    await cluster.outside.ask("node.undrain", {"cluster": CLUSTER, "node": "n1"}, Drain)
