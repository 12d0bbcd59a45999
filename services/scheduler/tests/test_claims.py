"""Room is claimed in the transaction that gives it: over Postgres, and over the store that simulations use."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from random import Random
from typing import Any

import pytest

from vmfabric.contract.admin import VmPhase
from vmfabric.contract.cluster import Reserve
from vmfabric.scheduler.domain.candidate import Usage

from .seat import Scheduler, in_postgres

_NAMES = tuple(f"vm{number}" for number in range(40))
_ROOM = {"n1": 14, "n2": 16}
_MOST_VMS = {"n1": 6, "n2": 99}


def _asked(scheduler: Scheduler, random: Random) -> list[partial[Coroutine[Any, Any, None]]]:
    """More than there is room for; all of it several times, in any order."""
    handlers, sizes = scheduler.handlers, {vm: random.randint(1, 4) for vm in _NAMES}
    made = [partial(handlers.requested, scheduler.request(vm, cpu=sizes[vm])) for vm in _NAMES for _ in range(2)]
    gone = [partial(handlers.delete_requested, scheduler.deletion(vm)) for vm in random.sample(_NAMES, 10)]
    delivered = [delivery for delivery in (*made, *gone) for _ in range(random.randint(1, 3))]
    random.shuffle(delivered)
    return delivered


async def _is_within(scheduler: Scheduler) -> None:
    async with scheduler.store.rows() as rows:
        for row in await rows.nodes():
            assert row.used.cpu <= _ROOM[row.spec.name]
            assert row.used.vms <= _MOST_VMS[row.spec.name]


async def _is_counted(scheduler: Scheduler) -> None:
    async with scheduler.store.rows() as rows:
        for row in await rows.nodes():
            records = await rows.vms_on(row.key)
            assert row.used == sum((Usage.of(record.request) for record in records), Usage())


@pytest.mark.parametrize("seed", range(5))
async def test_requests_at_once_repeated_and_in_any_order_never_overcommit(scheduler: Scheduler, seed: int) -> None:
    random = Random(seed)  # noqa: S311  # which of them come when is no secret
    await scheduler.has_node("n1", 1, reserve=Reserve(cpu=2), max_vms=6)
    for _ in range(3):
        async with asyncio.TaskGroup() as group:
            for deliver in _asked(scheduler, random):
                group.create_task(deliver())
                if random.random() < 0.1:
                    await asyncio.sleep(0.001)
                    await _is_within(scheduler)
        await _is_within(scheduler)
        await _is_counted(scheduler)
        assert sum(await scheduler.used()) > 20, "there was more to place than room"
        for vm in _NAMES:
            record = await scheduler.record(vm)
            if record is not None and record.phase is VmPhase.RELEASING:
                await scheduler.hears("ip.released", vm=vm)
        await _is_counted(scheduler)


async def test_the_last_room_that_headroom_leaves_is_given_once(scheduler: Scheduler) -> None:
    await scheduler.has_cluster(headroom_nodes=1)
    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(scheduler.handlers.requested(scheduler.request(f"vm{number}", cpu=1)))
    assert sum(await scheduler.used()) == 16


async def test_two_schedulers_on_one_database_never_give_the_same_room(database_url: str) -> None:
    """The lock lets one write; should it ever fail, the rows of the nodes are locked all the same."""
    async with in_postgres(database_url) as one, in_postgres(database_url) as other:
        await one.prepare()
        await one.has_cluster()
        working = [asyncio.create_task(each.desk.run()) for each in (one, other)]
        async with asyncio.TaskGroup() as group:
            for number in range(60):
                each = one if number % 2 else other
                group.create_task(each.handlers.requested(each.request(f"vm{number}", cpu=1)))
                await asyncio.sleep(0)
        assert await one.used() == [16, 16], "there was more to place than room"
        await _is_counted(one)
        for task in working:
            task.cancel()
