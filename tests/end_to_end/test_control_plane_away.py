"""The control plane is away, or has lost what it kept on the bus: nothing changes for guests, kernels and BGP."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import nats.js.errors
import pytest

from outside.cluster import CLUSTER, Cluster
from vmfabric.contract.desired import BUCKET, VM_KEY
from vmfabric.contract.errors import Refused, TryAgain
from vmfabric.contract.explanation import VmExplanation
from vmfabric.contract.vm import VmReady
from vmfabric.lab import faults, frr, processes
from vmfabric.lab.hosts import run_on
from vmfabric.lab.pings import Pings, pinged

pytestmark = pytest.mark.lab

AWAY_SECONDS = float(os.environ.get("VMFABRIC_AWAY_SECONDS", "4"))
"""How long each part is away; VMFABRIC_AWAY_SECONDS=300 makes it ten minutes in all."""

QUIET_SECONDS = 2.0

CONTROL_PLANE = [("scheduler", "control"), ("ipam", "control"), ("nats", "control"), ("postgres", "control")]
NODE_SERVICES = [(service, node) for node in ("n1", "n2") for service in ("node-agent", "bgp-announcer")]


@pytest.fixture
async def served(cluster: Cluster) -> Sequence[VmReady]:
    """One VM on each node."""
    for node in ("n1", "n2"):
        await cluster.request(f"on-{node}", node=node)
    ready = [await cluster.ready(f"on-{node}") for node in ("n1", "n2")]
    for vm in ready:
        await cluster.reachable(vm)
    await all_right(cluster, ready)
    await quiet(cluster)
    return ready


@pytest.mark.timeout(180 + 2 * AWAY_SECONDS)
async def test_no_packet_is_lost_and_no_update_sent_while_it_is_away_and_when_it_is_back(
    cluster: Cluster, served: Sequence[VmReady]
) -> None:
    before, kernels = updates(cluster), state_of_kernels(cluster)
    async with all_pinged(cluster, served) as pings:
        try:
            for part in (CONTROL_PLANE, NODE_SERVICES):
                for service, host in part:
                    faults.kill_service(cluster.lab, service, host)
                await asyncio.sleep(AWAY_SECONDS)
                assert not [it for it in part if processes.pid(cluster.lab.state, cluster.lab.program(*it))]
            assert (updates(cluster), state_of_kernels(cluster)) == (before, kernels), "while it is away"
        finally:
            for service, host in (*reversed(CONTROL_PLANE), *NODE_SERVICES):
                await asyncio.to_thread(faults.start_service, cluster.lab, service, host)
        await cluster.settled()
        await all_right(cluster, served)
        assert (updates(cluster), state_of_kernels(cluster)) == (before, kernels), "when it is back"
    assert [(each.lost, each.sent > 100 * AWAY_SECONDS) for each in pings] == [(0, True)] * len(served)
    await cluster.delete(served[0].vm)
    assert updates(cluster) != before, "an update is seen where there is one"


async def test_all_that_the_bus_kept_is_published_again_and_nothing_changes_on_the_nodes(
    cluster: Cluster, served: Sequence[VmReady]
) -> None:
    before, kernels = updates(cluster), state_of_kernels(cluster)
    jetstream = cluster.outside.client.jetstream(timeout=5)
    async with all_pinged(cluster, served) as pings:
        for stream in await jetstream.streams_info():
            await jetstream.delete_stream(stream.config.name or "")
        async with asyncio.timeout(30):
            while not await are_in_the_bucket(cluster, served):
                await asyncio.sleep(0.1)
        await all_right(cluster, served)
        assert (updates(cluster), state_of_kernels(cluster)) == (before, kernels)
        await cluster.request("vm1")
        await cluster.all_ready(["vm1"])
    assert [each.lost for each in pings] == [0] * len(served)


@asynccontextmanager
async def all_pinged(cluster: Cluster, vms: Sequence[VmReady]) -> AsyncIterator[list[Pings]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(pinged(cluster.lab, "core", it.address))
            for vm in vms
            for it in vm.addresses[:1]
        ]


async def all_right(cluster: Cluster, vms: Sequence[VmReady]) -> None:
    """Everybody from the scheduler to the reflectors has looked at them, and has nothing to do."""
    async with asyncio.timeout(60):
        for vm in vms:
            while not await is_right(cluster, vm):
                await asyncio.sleep(0.2)


async def is_right(cluster: Cluster, vm: VmReady) -> bool:
    try:
        found = await cluster.outside.ask("vm.explain", {"cluster": CLUSTER, "vm": vm.vm}, VmExplanation)
    except (TryAgain, Refused):
        return False
    return all(finding.is_right for finding in found.findings)


async def are_in_the_bucket(cluster: Cluster, vms: Sequence[VmReady]) -> bool:
    jetstream = cluster.outside.client.jetstream(timeout=5)
    try:
        bucket = await jetstream.key_value(BUCKET)
        for vm in vms:
            await bucket.get(VM_KEY.render({"cluster": CLUSTER, "node": vm.node, "vm": vm.vm}))
    except nats.js.errors.NotFoundError:
        return False
    return True


async def quiet(cluster: Cluster) -> None:
    """The last update of what was made has come through the reflectors."""
    async with asyncio.timeout(30):
        before = None
        while before != (before := updates(cluster)):
            await asyncio.sleep(QUIET_SECONDS)


def updates(cluster: Cluster) -> dict[str, int]:
    """BGP UPDATE messages that the core and the reflectors have received, by who sent them."""
    counts: dict[str, int] = {}
    for router in (cluster.lab.topology.core, *cluster.lab.topology.reflectors):
        shown = json.loads(frr.vtysh(cluster.lab.topology, router, "show bgp neighbors json"))
        for peer, state in shown.items():
            counts[f"{router.name} from {peer}"] = state["messageStats"]["updatesRecv"]
    return counts


def state_of_kernels(cluster: Cluster) -> list[str]:
    shown = (("ip", "-o", "link"), ("ip", "route"), ("ip", "-6", "route"), ("nft", "list", "ruleset"))
    return [run_on(cluster.lab, node.name, *command) for node in cluster.lab.topology.nodes for command in shown]
