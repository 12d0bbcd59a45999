"""A node is emptied for maintenance, while its VMs are pinged."""

import asyncio
import json

import pytest

from outside.cluster import CLUSTER, Cluster
from vmfabric.contract.addresses import host_prefix
from vmfabric.contract.admin import Change, Drain
from vmfabric.contract.node import NodeDrained, NodeDraining
from vmfabric.contract.vm import VmFailed
from vmfabric.lab import frr
from vmfabric.lab.hosts import bgp_routes
from vmfabric.lab.pings import pinged

pytestmark = pytest.mark.lab


async def drain(cluster: Cluster, node: str, **changes: object) -> Drain:
    return await cluster.outside.ask("node.drain", {"cluster": CLUSTER, "node": node, **changes}, Drain)


async def undrain(cluster: Cluster, node: str) -> Drain:
    return await cluster.outside.ask("node.undrain", {"cluster": CLUSTER, "node": node}, Drain)


async def test_a_drained_node_is_empty_and_its_vms_answer_all_the_while(cluster: Cluster) -> None:
    names = [f"vm{number}" for number in range(12)]
    for name in names:
        await cluster.request(name)
    ready = [await cluster.ready(name) for name in names]
    moved = next(it for it in ready if it.node == "n1")
    await cluster.reachable(moved)
    asked = await drain(cluster, "n1", parallel=3)
    assert (asked.change, asked.vms, asked.staying) == (Change.CHANGED, sum(it.node == "n1" for it in ready), ())
    try:
        async with pinged(cluster.lab, "core", moved.addresses[0].address) as pings:
            await cluster.outside.wait_for(NodeDrained, unless=VmFailed, seconds=60)
            n1 = str(cluster.lab.topology.node("n1").ipv4)
            assert n1 not in bgp_routes(cluster.lab, "core").values(), "the core does not use it any more"
        print(f"{pings.lost} of {pings.sent} lost")
        # Three guests are started at once on two cores; to break before making costs 18 and more.
        assert pings.lost <= 15
        said = [event for event in cluster.outside.events(NodeDraining) if isinstance(event, NodeDraining)]
        assert max(event.moving for event in said) <= 3
        assert said[0].left == asked.vms
        for it in ready:
            await cluster.reachable(it)
    finally:
        await undrain(cluster, "n1")
    await cluster.request("back", node="n1")
    assert (await cluster.ready("back")).node == "n1"


async def test_what_cannot_move_stays_with_its_reason_and_is_announced_as_going_down(cluster: Cluster) -> None:
    await cluster.request("pinned", node="n1")
    ready = await cluster.ready("pinned")
    prefix = host_prefix(ready.addresses[0].address)
    try:
        asked = await drain(cluster, "n1", going_down=True)
        assert [(it.vm, it.reason) for it in asked.staying] == [("pinned", "its request asks for this node")]
        async with asyncio.timeout(15):
            while cluster.local_preference(prefix) != 0:
                await asyncio.sleep(0.05)
        await cluster.reachable(ready)
    finally:
        await undrain(cluster, "n1")
    async with asyncio.timeout(15):
        while cluster.local_preference(prefix) != 100:
            await asyncio.sleep(0.05)
    shown = json.loads(frr.vtysh(cluster.lab.topology, cluster.lab.router("n1"), "show bgp summary json"))
    resets = [peer["connectionsDropped"] for peer in shown["ipv4Unicast"]["peers"].values()]
    before = [peer["connectionsEstablished"] - 1 for peer in shown["ipv4Unicast"]["peers"].values()]
    assert resets == before
