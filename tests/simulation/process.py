"""A process of vmfabric: started, killed at any await point, started again."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn

from simulation.faults import Fault, Faults
from simulation.story import Story
from simulation.virtual_time import Mortal, VirtualLoop


class Process(Mortal):
    """One life of a process. What it left in files, tables and kernels is there for the next one."""

    def __init__(self, name: str, life: int, loop: VirtualLoop, faults: Faults, on_end: "OnEnd") -> None:
        super().__init__()
        self.name = name
        self.life = life
        self._loop = loop
        self._faults = faults
        self._on_end = on_end

    def spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        """Run it as part of this process."""

        async def run() -> None:
            await work

        return self._loop.create_task(run(), context=self.context)

    async def point(self) -> None:
        """A moment at which this process waits for the world outside: it may take long, and it may be its last."""
        if not self._faults.is_on:
            return
        if self._faults.roll(Fault.CRASH):
            await self.die("between two steps")
        slow = self._faults.roll(Fault.SLOW)
        await asyncio.sleep(self._faults.between(0.001, 1.5) if slow else 0)

    async def die(self, where: str) -> NoReturn:
        """Called by its own code, which never returns from here."""
        self.kill(where)
        await asyncio.Future()
        raise AssertionError("the dead do not go on")

    def kill(self, where: str) -> None:
        """End it without any of its clean-up."""
        if not self.is_dead:
            self._loop.stop_dead(self)
            self._on_end(self, where)


OnEnd = Callable[[Process, str], None]
Compose = Callable[[Process], Coroutine[Any, Any, None]]


class Supervisor:
    """Starts a process, and starts it again some time after it has ended, as systemd does."""

    def __init__(self, name: str, compose: Compose, loop: VirtualLoop, faults: Faults, story: Story) -> None:
        self.name = name
        self.process: Process | None = None
        self.lives: list[Process] = []
        self.ended_by_itself: Callable[[str, BaseException | None], None] = lambda _name, _error: None
        self.on_death: Callable[[Process], None] = lambda _process: None
        self._compose = compose
        self._loop = loop
        self._faults = faults
        self._story = story
        self._held = False

    def hold(self, where: str) -> None:
        """It dies, and has no new life for a while."""
        self._held = True
        self.kill(where)

    def release(self) -> None:
        """It may live again."""
        self._held = False
        self.start()

    def start(self) -> None:
        """A new life, unless it has one or may not have one."""
        if self._held or self.process is not None:
            return
        process = Process(self.name, len(self.lives) + 1, self._loop, self._faults, self._ended)
        self.process = process
        self.lives.append(process)
        self._story.tell("{0} starts, life {1}", self.name, process.life)
        process.spawn(self._compose(process)).add_done_callback(self._main_ended)

    def kill(self, where: str) -> None:
        """If it lives."""
        if self.process is not None:
            self.process.kill(where)

    def _ended(self, process: Process, where: str) -> None:
        self._story.tell("{0} dies {1}", self.name, where)
        self.process = None
        self.on_death(process)
        self._loop.outside(self._faults.between(0.2, 6.0), self.start)

    def _main_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self.ended_by_itself(self.name, task.exception())
