"""One of several dies and stays away; another one goes on with its work."""

import asyncio
import time

import nats.errors
import pytest

from chaos import verdict
from outside.cluster import Cluster
from vmfabric.contract.streams import FACT_STREAM, REQUEST_STREAM
from vmfabric.contract.vm import VmReady
from vmfabric.lab import faults, processes, redundancy
from vmfabric.lab.lab import Lab
from vmfabric.lab.processes import Program

pytestmark = pytest.mark.lab

TAKEN_OVER_SECONDS = 10
VMS = 30


async def until_it_writes(lab: Lab, service: str, but: Program | None = None) -> Program:
    async with asyncio.timeout(30):
        while (found := redundancy.writer(lab, service)) is None or found == but:
            await asyncio.sleep(0.02)
    return found


@pytest.mark.parametrize("service", ["scheduler", "ipam"])
async def test_the_other_process_takes_over_within_ten_seconds(cluster: Cluster, service: str) -> None:
    writer = await until_it_writes(cluster.lab, service)
    killed = time.monotonic()
    faults.kill_service(cluster.lab, writer.service)
    assert processes.pid(cluster.lab.state, writer) is None
    try:
        await cluster.request("vm1")
        ready = await cluster.ready("vm1")
        took = time.monotonic() - killed
        print(f"{service}: killed, and a VM that was asked for then is ready after {took:.1f} s")
        assert await until_it_writes(cluster.lab, service, but=writer) != writer
        assert took < TAKEN_OVER_SECONDS
        await cluster.reachable(ready)
    finally:
        await asyncio.to_thread(faults.start_service, cluster.lab, writer.service)
    assert redundancy.writer(cluster.lab, service) != writer, "who comes back waits"


@pytest.mark.parametrize("stream", [REQUEST_STREAM.name, FACT_STREAM.name])
async def test_the_leader_of_a_stream_killed_under_load_loses_nothing(cluster: Cluster, stream: str) -> None:
    leader = await redundancy.led(cluster.outside, stream)
    names = [f"vm{number}" for number in range(VMS)]
    asking = asyncio.create_task(ask_for(cluster, names))
    await cluster.outside.wait_for(VmReady)
    done = len(cluster.outside.events(VmReady))
    faults.kill_service(cluster.lab, leader)
    assert done < VMS, "the kill came before all was done"
    try:
        await asking
        states = await cluster.all_ready(names)
        async with asyncio.timeout(20):
            while await redundancy.leader(cluster.outside, stream) in {None, leader}:
                await asyncio.sleep(0.1)
    finally:
        await asyncio.to_thread(faults.start_service, cluster.lab, leader)
    await redundancy.led(cluster.outside, stream)
    said = {fact.vm for fact in await verdict.kept(cluster.outside, VmReady)}
    assert said >= set(names)
    _, impossible = await verdict.history(cluster.outside)
    assert impossible == []
    for state in states:
        assert await cluster.answers(state.addresses[0].address)


async def ask_for(cluster: Cluster, names: list[str]) -> None:
    """As whoever needs an answer: again, until the bus keeps it."""
    for name in names:
        while True:
            try:
                await cluster.request(name)
                break
            except (nats.errors.Error, TimeoutError):
                await asyncio.sleep(0.2)


async def test_every_stream_is_kept_three_times(cluster: Cluster) -> None:
    streams = await cluster.outside.client.jetstream().streams_info()
    assert {it.config.num_replicas for it in streams} == {3}
    assert len(streams) == 4
