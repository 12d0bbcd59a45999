"""The database's machine dies, and its standby is promoted."""

import asyncio
import time

import nats.errors
import pytest

from chaos import verdict
from outside.cluster import Cluster
from vmfabric.contract.admin import Vms
from vmfabric.contract.errors import TryAgain
from vmfabric.contract.ip import IpAllocated
from vmfabric.contract.vm import VmReady
from vmfabric.lab import control_plane, faults, processes
from vmfabric.lab.hosts import run_on
from vmfabric.lab.pings import pinged
from vmfabric.lab.topology import CONTROL

pytestmark = pytest.mark.lab

VMS = 30


def standby_of(cluster: Cluster) -> str:
    return control_plane.postgres(cluster.lab.state, cluster.lab.topology)[1].service


async def test_a_synchronous_standby_that_is_promoted_under_load_has_lost_nothing(cluster: Cluster) -> None:
    names = [f"vm{number}" for number in range(VMS)]
    await cluster.request("anchor")
    anchor = await cluster.ready("anchor")
    await cluster.reachable(anchor)
    async with pinged(cluster.lab, "core", anchor.addresses[0].address) as pings:
        for name in names:
            await cluster.request(name)
        await cluster.outside.wait_for(VmReady, vm=names[0])
        killed = time.monotonic()
        faults.kill_service(cluster.lab, "postgres")
        done = len(cluster.outside.events(VmReady))
        assert done <= VMS, "the kill came before all was done"
        control_plane.promote(cluster.lab.state)
        states = await cluster.all_ready(names)
        print(f"{done - 1} of {VMS} were ready at the kill, all {time.monotonic() - killed:.1f} s later")
    assert pings.lost == 0
    given = {state.vm: {it.address for it in state.addresses} for state in states}
    for event in cluster.outside.events(IpAllocated):
        if event.vm in given:
            assert {it.address for it in event.addresses} == given[event.vm], "what was said before is still so"
    for state in states:
        for it in state.addresses:
            assert await cluster.answers(it.address), f"{state.vm} does not answer on {it.address}"
    facts, impossible = await verdict.history(cluster.outside)
    assert impossible == []
    assert facts > VMS
    cluster.outside.heard.clear()
    await cluster.delete("anchor", *names)
    await cluster.no_routes()


def is_noticed(cluster: Cluster) -> bool:
    said = processes.output(cluster.lab.state, cluster.lab.program("scheduler", CONTROL))
    return '"event": "database.behind"' in said


async def test_a_standby_that_was_behind_is_noticed_and_not_obeyed(cluster: Cluster) -> None:
    control_plane.replicate(cluster.lab.state, synchronously=False)
    standby = standby_of(cluster)
    faults.kill_service(cluster.lab, standby)
    await cluster.request("vm1", node="n1")
    ready = await cluster.ready("vm1")
    await cluster.reachable(ready)
    routes = run_on(cluster.lab, "n1", "ip", "route")
    async with pinged(cluster.lab, "core", ready.addresses[0].address) as pings:
        faults.kill_service(cluster.lab, "postgres")
        faults.start_service(cluster.lab, standby)
        control_plane.promote(cluster.lab.state)
        async with asyncio.timeout(60):
            while not is_noticed(cluster):
                await asyncio.sleep(0.1)
        with pytest.raises((TryAgain, nats.errors.Error)):
            await cluster.outside.ask("vm.list", {}, Vms)
        assert run_on(cluster.lab, "n1", "ip", "route") == routes
        faults.kill_service(cluster.lab, standby)
        faults.start_service(cluster.lab, "postgres")
        assert [it.vm for it in await cluster.all_ready(["vm1"])] == ["vm1"]
    assert pings.lost == 0
