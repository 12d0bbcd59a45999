"""Work side by side, but one at a time and in order for each key."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable

Job = Callable[[], Awaitable[None]]


class Lanes:
    """A lane for each key that has work. The sender bounds how much there may be."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[Job]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, key: Hashable, job: Job) -> None:
        """Run the job behind all earlier ones of the same key. A job must not raise."""
        lane = self._waiting.get(key)
        if lane is not None:
            lane.append(job)
            return
        self._waiting[key] = deque([job])
        task = asyncio.create_task(self._serve(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, seconds: float) -> None:
        """Wait for the work in hand, then give up what is left: it was not acknowledged and comes again."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()

    async def _serve(self, key: Hashable) -> None:
        lane = self._waiting[key]
        try:
            while lane:
                await lane[0]()
                lane.popleft()
        finally:
            del self._waiting[key]
