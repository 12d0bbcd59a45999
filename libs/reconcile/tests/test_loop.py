"""What the loop promises to those who mark."""

import asyncio

from vmfabric.reconcile.loop import Again, Dirty, Loop


class Steps:
    def __init__(self) -> None:
        self.seen: asyncio.Queue[Dirty] = asyncio.Queue()
        self.fail = 0
        self.again: list[Again] = []

    async def step(self, dirty: Dirty) -> Again:
        self.seen.put_nowait(dirty)
        if self.fail:
            self.fail -= 1
            raise OSError("the kernel is away")
        return self.again.pop(0) if self.again else Again()


async def run(loop: Loop, steps: Steps, count: int) -> list[Dirty]:
    task = asyncio.create_task(loop.run())
    try:
        return [await asyncio.wait_for(steps.seen.get(), 5) for _ in range(count)]
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_the_first_step_looks_at_everything_and_marks_are_one_batch() -> None:
    steps = Steps()
    loop = Loop(steps.step, resync=60)
    loop.mark("a", "b")
    loop.mark("b", "c")
    assert await run(loop, steps, 1) == [Dirty(frozenset("abc"), all=True)]


async def test_a_failed_step_is_given_all_of_it_again() -> None:
    steps = Steps()
    steps.fail = 2
    loop = Loop(steps.step, resync=60, backoff=0.01)
    loop.mark("a")
    assert await run(loop, steps, 3) == [Dirty(frozenset("a"), all=True)] * 3


async def test_a_step_is_run_again_for_what_it_asked() -> None:
    steps = Steps()
    steps.again = [Again(frozenset("a"), after=0.01)]
    assert (await run(Loop(steps.step, resync=60), steps, 2))[1] == Dirty(frozenset("a"), all=False)


async def test_everything_is_looked_at_every_resync() -> None:
    steps = Steps()
    assert all(dirty.all for dirty in await run(Loop(steps.step, resync=0.02), steps, 3))


async def test_something_that_is_never_done_does_not_make_the_steps_come_ever_closer() -> None:
    seen: list[Dirty] = []

    async def step(dirty: Dirty) -> Again:
        seen.append(dirty)
        return Again(frozenset({"stuck"}), after=0.05)

    task = asyncio.create_task(Loop(step, resync=0.03).run())
    await asyncio.sleep(1.0)
    task.cancel()
    await asyncio.wait({task})
    # 33 looks at everything and 20 at what is stuck, if no look is given twice.
    assert len(seen) <= 60


async def test_what_was_done_meanwhile_is_not_looked_at_again() -> None:
    steps = Steps()
    steps.again = [Again(frozenset("a"), after=0.05)]
    loop = Loop(steps.step, resync=60)
    task = asyncio.create_task(loop.run())
    await asyncio.wait_for(steps.seen.get(), 5)
    loop.mark("a")
    await asyncio.wait_for(steps.seen.get(), 5)
    await asyncio.sleep(0.15)
    task.cancel()
    await asyncio.wait({task})
    assert steps.seen.empty()
