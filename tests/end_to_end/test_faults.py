"""Processes die, links are cut, and what should be is in the end."""

import asyncio

import pytest

from outside.cluster import Cluster
from vmfabric.contract.vm import VmReady
from vmfabric.lab import faults, frr, processes
from vmfabric.lab.hosts import run_on
from vmfabric.lab.lab import Lab

pytestmark = pytest.mark.lab

SERVICES = [
    ("scheduler", "control"),
    ("ipam", "control"),
    ("node-agent", "n1"),
    ("bgp-announcer", "n1"),
    ("postgres", "control"),
]


def writers(lab: Lab) -> list[int | None]:
    return [processes.pid(lab.state, lab.program(service, "control")) for service in ("scheduler", "ipam")]


@pytest.mark.parametrize(("service", "host"), SERVICES, ids=[service for service, _ in SERVICES])
async def test_a_service_killed_in_the_middle_changes_nothing_in_the_end(
    cluster: Cluster, service: str, host: str
) -> None:
    names = [f"vm{number}" for number in range(20)]
    for name in names:
        await cluster.request(name)
    await cluster.outside.wait_for(VmReady, seconds=20)
    before = writers(cluster.lab)
    faults.kill_service(cluster.lab, service, host)
    done = len(cluster.outside.events(VmReady))
    await asyncio.to_thread(faults.start_service, cluster.lab, service, host)
    assert done < len(names), "the kill came before all was done"
    states = await cluster.all_ready(names)
    if service == "postgres":
        assert writers(cluster.lab) == before, "the writers live through a restart of Postgres"
    for state in states:
        for allocated in state.addresses:
            assert await cluster.answers(allocated.address)


async def test_what_crashes_is_started_again_by_the_lab_and_serves(cluster: Cluster) -> None:
    crashed = [cluster.lab.program(service, host) for service, host in SERVICES]
    before = {program.name: processes.pid(cluster.lab.state, program) for program in crashed}
    for program in crashed:
        faults.crash_service(cluster.lab, program.service, program.host)
    async with asyncio.timeout(30):
        while not all(processes.pid(cluster.lab.state, it) not in {None, before[it.name]} for it in crashed):
            await asyncio.sleep(0.05)
    await cluster.request("vm1", node="n1")
    states = await cluster.all_ready(["vm1"])
    assert await cluster.answers(states[0].addresses[0].address)


async def test_bgpd_killed_comes_back_with_its_routes(cluster: Cluster) -> None:
    await cluster.request("vm1", node="n1")
    ready = await cluster.ready("vm1")
    await cluster.reachable(ready)
    faults.kill_frr(cluster.lab, "n1", "bgpd")
    assert frr.pid(cluster.lab.topology, cluster.lab.router("n1"), "bgpd") is None
    await asyncio.to_thread(faults.start_frr, cluster.lab, "n1")
    async with asyncio.timeout(30):
        while not await cluster.answers(ready.addresses[0].address, seconds=1):
            pass
    await cluster.reachable(ready)


async def test_an_agent_that_starts_without_the_bus_restores_what_it_had(cluster: Cluster) -> None:
    await cluster.request("vm1", node="n1")
    ready = await cluster.ready("vm1")
    await cluster.reachable(ready)
    faults.cut_management(cluster.lab, "n1")
    faults.kill_service(cluster.lab, "node-agent", "n1")
    try:
        run_on(cluster.lab, "n1", "ip", "route", "flush", "proto", "86")
        assert not await cluster.answers(ready.addresses[0].address, seconds=1)
        faults.start_service(cluster.lab, "node-agent", "n1", wait=False)
        assert await cluster.answers(ready.addresses[0].address, seconds=10)
    finally:
        faults.restore_management(cluster.lab, "n1")
