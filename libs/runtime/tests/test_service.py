"""When a service works, ends, and starts its work again."""

import asyncio

import pytest
from structlog.testing import capture_logs

from vmfabric.runtime.service import Interrupted, work_until


async def test_interrupted_work_starts_again_until_told_to_stop() -> None:
    stopping = asyncio.Event()
    terms: list[str] = []

    async def work() -> None:
        terms.append("started")
        if len(terms) == 1:
            # As a lock that is lost does: in a task beside the work, in a group within a group.
            async with asyncio.TaskGroup() as outer, asyncio.TaskGroup():
                outer.create_task(interrupt())
                await asyncio.Event().wait()
        stopping.set()
        await asyncio.Event().wait()

    async def interrupt() -> None:
        raise Interrupted("the database is away")

    async with asyncio.timeout(5):
        await work_until(stopping, work)
    assert len(terms) == 2


async def test_what_else_was_wrong_when_it_was_interrupted_is_said() -> None:
    stopping = asyncio.Event()

    async def work() -> None:
        stopping.set()
        raise ExceptionGroup("both at once", [Interrupted("the lock is lost"), ValueError("a mistake of ours")])

    with capture_logs() as logs:
        async with asyncio.timeout(5):
            await work_until(stopping, work)
    (said,) = [it for it in logs if it["event"] == "service.interrupted"]
    assert (said["reason"], said["also"]) == ("the lock is lost", ["ValueError('a mistake of ours')"])


async def test_what_is_wrong_ends_the_service() -> None:
    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())

    async def fail() -> None:
        raise ValueError("a mistake of ours")

    async with asyncio.timeout(5):
        with pytest.raises(ExceptionGroup) as caught:
            await work_until(asyncio.Event(), work)
    assert caught.group_contains(ValueError)


async def test_what_is_in_hand_is_finished_when_told_to_stop() -> None:
    stopping = asyncio.Event()
    finished = asyncio.Event()

    async def work() -> None:
        try:
            stopping.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            finished.set()

    async with asyncio.timeout(5):
        await work_until(stopping, work)
    assert finished.is_set()


async def test_a_service_that_waits_for_better_times_stops_when_told() -> None:
    stopping = asyncio.Event()

    async def work() -> None:
        stopping.set()
        raise Interrupted("the database is away")

    async with asyncio.timeout(5):
        await work_until(stopping, work)
