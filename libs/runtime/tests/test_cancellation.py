"""A task that is told to end while it gets its answer ends."""

import asyncio

import pytest

from vmfabric.runtime.cancellation import keep_cancellations


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "wait_for", asyncio.wait_for)  # put back afterwards
    keep_cancellations()


async def test_a_cancellation_that_comes_together_with_the_answer_is_not_lost() -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        while True:
            await asyncio.wait_for(answer, 5)
            await asyncio.sleep(0)

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    answer.set_result("yes")
    working.cancel()
    done, _ = await asyncio.wait({working}, timeout=0.5)
    assert done
    assert working.cancelled()


async def test_an_answer_that_does_not_come_is_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.01)
