"""Everything that is not needed to forward packets is away, and comes back: nobody notices."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

import nats.js.errors
import pytest

from outside.cluster import Cluster
from outside.untouched import received, untouched
from vmfabric.contract.desired import BUCKET, HANDED_OUT_KEY
from vmfabric.contract.streams import STREAMS
from vmfabric.contract.vm import VmReady
from vmfabric.lab import faults, processes
from vmfabric.lab.client import LabClient
from vmfabric.lab.lab import Lab

pytestmark = pytest.mark.lab

CONTROL_PLANE = [(service, "control") for service in ("scheduler", "ipam", "nats", "postgres")]
NODES = ("n1", "n2")
NODE_SERVICES = [(service, node) for node in NODES for service in ("node-agent", "bgp-announcer")]
ALL_STREAMS = {f"KV_{BUCKET}", *(stream.name for stream in STREAMS)}


async def ready_everywhere(cluster: Cluster) -> list[VmReady]:
    """A VM on each node."""
    for node in NODES:
        await cluster.request(f"on-{node}", node=node)
    return [await cluster.ready(f"on-{node}") for node in NODES]


def kill(lab: Lab, services: Sequence[tuple[str, str]]) -> None:
    for service, host in services:
        faults.kill_service(lab, service, host)


def are_away(lab: Lab, services: Sequence[tuple[str, str]]) -> bool:
    return all(processes.pid(lab.state, lab.program(service, host)) is None for service, host in services)


async def serve_from_their_snapshots(lab: Lab) -> None:
    """The nodes' services have been started, and have waited in vain for the bus."""
    async with asyncio.timeout(30):
        for service, node in NODE_SERVICES:
            while "desired.from_snapshot" not in processes.output(lab.state, lab.program(service, node)):
                await asyncio.sleep(0.05)


async def test_nobody_notices_that_the_control_plane_and_then_the_nodes_services_are_away_and_return(
    cluster: Cluster, away_seconds: float
) -> None:
    """For ten minutes: ./vmfabric test -- tests/end_to_end/test_away.py --away-seconds 600 --timeout 900."""
    lab = cluster.lab
    vms = await ready_everywhere(cluster)
    async with untouched(cluster, vms):
        kill(lab, CONTROL_PLANE)
        await asyncio.sleep(away_seconds / 2)
        kill(lab, NODE_SERVICES)
        await asyncio.sleep(away_seconds / 2)
        assert are_away(lab, [*CONTROL_PLANE, *NODE_SERVICES])
        for service, node in NODE_SERVICES:
            faults.start_service(lab, service, node, wait=False)
        await serve_from_their_snapshots(lab)
        for service, host in reversed(CONTROL_PLANE):
            await asyncio.to_thread(faults.start_service, lab, service, host)
        await cluster.settled()
    before = received(lab)
    await cluster.request("after", node="n1")
    await cluster.reachable(await cluster.ready("after"))
    told = received(lab)
    assert before.keys() == told.keys()
    grown = {peer for peer in told if told[peer] > before[peer]}
    n1 = lab.topology.node("n1").ipv4
    assert {peer for peer in told if peer.startswith("core ") or f" from {n1}," in peer} <= grown, "what counts"


async def made_at(outside: LabClient) -> Mapping[str, datetime]:
    """When each stream was made."""
    found = await outside.client.jetstream(timeout=5).streams_info()
    return {info.config.name or "": info.created for info in found if info.created is not None}


async def values(outside: LabClient) -> Mapping[str, bytes]:
    """All desired state but the last generation, which may be a newer one; nothing while the bucket is not there, or
    has not got that.
    """
    try:
        values = dict(await outside.desired())
    except nats.js.errors.NotFoundError:
        return {}
    return values if values.pop(HANDED_OUT_KEY.stem, None) else {}


async def test_all_data_of_the_bus_is_deleted_and_published_again_and_nobody_notices(cluster: Cluster) -> None:
    outside = cluster.outside
    await cluster.request("gone")
    await cluster.ready("gone")
    await cluster.delete("gone")
    vms = await ready_everywhere(cluster)
    before, first = await values(outside), await made_at(outside)
    assert first.keys() == ALL_STREAMS
    assert {key for key in before if key.startswith("vm.")} == {f"vm.msk.{node}.on-{node}" for node in NODES}
    async with untouched(cluster, vms):
        for stream in ALL_STREAMS:
            await outside.client.jetstream(timeout=5).delete_stream(stream)
        async with asyncio.timeout(20):
            while (await made_at(outside)).keys() != ALL_STREAMS or await values(outside) != before:
                await asyncio.sleep(0.1)
        again = await made_at(outside)
        assert all(again[stream] > first[stream] for stream in ALL_STREAMS)
    await cluster.request("after", node="n1")
    await cluster.reachable(await cluster.ready("after"))
