"""The scheduler as a process that may die at any moment."""

import asyncio
import subprocess
from collections import Counter
from collections.abc import Callable

import asyncpg

from .conftest import CLUSTER, World, a_node, a_request, until_asked

StartProcess = Callable[[], subprocess.Popen[bytes]]
_VMS = 300
_WAVE = 100


async def prepared(world: World) -> None:
    await until_asked(world, "cluster.apply", {"spec": CLUSTER})
    for number, name in enumerate(("n1", "n2"), start=1):
        await world.ask("node.apply", {"spec": a_node(name, number, cpu=1000)})
        await world.fact(f"node.joined.msk.{name}")


async def until_count(world: World, subject: str, count: int) -> None:
    async with asyncio.timeout(60):
        while sum(name.startswith(subject) for name, _ in world.facts) < count:
            await asyncio.sleep(0.005)


async def test_killed_again_and_again_it_serves_every_request_exactly_once(
    bare: World, start_process: StartProcess
) -> None:
    process = start_process()
    await prepared(bare)
    for first in range(0, _VMS, _WAVE):
        for number in range(first, first + _WAVE):
            await bare.publish("vm.requested", a_request(f"vm{number}", cpu=1, memory_mb=16, disk_gb=1))
        await until_count(bare, "vm.placed.", first + 10)
        process.kill()
        process.wait()
        assert sum(name.startswith("vm.ready.") for name, _ in bare.facts) < _VMS, "the kill hit in the middle"
        process = start_process()
    for number in range(_VMS):
        await bare.fact(f"vm.ready.msk.vm{number}")

    generations = {(body["vm"], body["generation"]) for name, body in bare.facts if name.startswith("vm.placed.")}
    assert len(generations) == _VMS, "no VM was placed twice"
    nodes = (await until_asked(bare, "node.list", {}))["nodes"]
    assert sum(node["used"]["cpu"] for node in nodes) == _VMS
    assert all(
        value["presence"] == "routed" for key, value in (await bare.desired()).items() if key.startswith("vm.")
    )

    for number in range(_VMS):
        await bare.publish("vm.delete.requested", {"cluster": "msk", "vm": f"vm{number}"})
    await until_count(bare, "vm.deleted.", 20)
    process.kill()
    process.wait()
    start_process()
    for number in range(_VMS):
        await bare.fact(f"vm.deleted.msk.vm{number}")
    ends = Counter(name for name, _ in bare.facts if name.startswith(("vm.deleted.", "vm.failed.")))
    assert len(ends) == _VMS
    nodes = (await until_asked(bare, "node.list", {}))["nodes"]
    assert [(node["used"]["cpu"], node["vms"]) for node in nodes] == [(0, 0), (0, 0)]
    assert not [key for key in await bare.desired() if key.startswith("vm.")]


SESSIONS_AT_THE_LOCK = """
SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vmfabric-lock-scheduler'
AND state = 'idle' AND (query LIKE '%pg_try_advisory_lock%' OR query = 'SELECT 1')
"""


async def until_one_waits(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    async with asyncio.timeout(20):
        while await connection.fetchval(SESSIONS_AT_THE_LOCK) != 2:
            await asyncio.sleep(0.02)
    await connection.close()


async def test_a_second_scheduler_waits_until_the_first_is_gone(
    bare: World, start_process: StartProcess, database_url: str
) -> None:
    first = start_process()
    await prepared(bare)
    second = start_process()
    await until_one_waits(database_url)
    await bare.publish("vm.requested", a_request("vm1"))
    await bare.fact("vm.ready.msk.vm1")
    assert second.poll() is None
    first.kill()
    first.wait()
    await bare.publish("vm.requested", a_request("vm2"))
    await bare.fact("vm.ready.msk.vm2")
    assert bare.count("vm.placed.msk.vm1") == bare.count("vm.placed.msk.vm2") == 1


async def test_asked_to_end_it_finishes_the_requests_that_it_has_in_hand(
    bare: World, start_process: StartProcess
) -> None:
    process = start_process()
    await prepared(bare)
    for number in range(_VMS):
        await bare.publish("vm.requested", a_request(f"vm{number}", cpu=1, memory_mb=16, disk_gb=1))
    await until_count(bare, "vm.placed.", 10)
    process.terminate()
    assert await asyncio.to_thread(process.wait, 20) == 0
    requests = await bare.client.jetstream().consumer_info("REQUESTS", "scheduler")
    assert (requests.num_pending, requests.num_ack_pending) == (0, 0), "else they come again 30 s later"
