"""An event loop whose time jumps to the next timer, and which can stop a process dead.

Everything that a process started carries it in its context. When it dies, none of its callbacks is ever run again: no
`finally`, no `except CancelledError`, as after a `kill -9`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Any

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_FORGET_DONE_TASKS_AT = 1000


class Mortal:
    """What tasks belong to, and what dies as a whole."""

    def __init__(self) -> None:
        self.is_dead = False
        self.context = copy_context()
        self.context.run(OWNER.set, self)
        self.tasks: list[asyncio.Task[Any]] = []
        """Held, since a task that is collected runs its `finally`."""
        self.stalled: list[asyncio.Handle] = []
        """What would have run had it lived."""


OWNER: ContextVar[Mortal | None] = ContextVar("owner", default=None)


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of their times, and of the same time in the order in which they were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._ready: deque[Any] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._number = count()
        self._outside = copy_context()
        self.set_task_factory(_task)

    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self.now

    def wall(self) -> datetime:
        """The wall clock."""
        return BEGIN + timedelta(seconds=self.now)

    def outside(self, after: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        """Call back on behalf of the world: it happens whoever dies meanwhile."""
        return self.call_at(self.now + after, callback, *args, context=self._outside)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._timers, (when, next(self._number), timer))
        return timer

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        """As asyncio's; for a dead process it never happens."""
        handle = asyncio.Handle(callback, args, self, context)
        owner = _owner(handle)
        (self._ready if owner is None or not owner.is_dead else owner.stalled).append(handle)
        return handle

    def stop_dead(self, owner: Mortal) -> None:
        """Kill it: nothing of it runs any more."""
        owner.is_dead = True
        for handle in [handle for handle in self._ready if _owner(handle) is owner and not handle.cancelled()]:
            owner.stalled.append(asyncio.Handle(handle._callback, handle._args, self, handle._context))
            handle.cancel()
        for _, _, timer in self._timers:
            if _owner(timer) is owner:
                timer.cancel()

    def bury(self, owner: Mortal) -> None:
        """At the end of the world, let its tasks run out in order, where nothing that they do counts any more."""
        owner.is_dead = False
        self._ready.extend(owner.stalled)
        owner.stalled.clear()

    def _run_once(self) -> None:
        """One turn: what is ready now. When nothing is, waiting is skipping to the next timer."""
        while not self._ready or (self._timers and self._timers[0][0] <= self.now):
            if not self._timers:
                raise RuntimeError("everybody waits and no timer is set: the simulation stands still")
            when, _, timer = heappop(self._timers)
            if not timer.cancelled():
                self.now = max(self.now, when)
                self._ready.append(timer)
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _asyncgen_firstiter_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        """Generators belong to tasks, and end with them."""

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        """The dead do not clean up."""


def _owner(handle: Any) -> Mortal | None:
    owner: Mortal | None = handle._context.get(OWNER)
    return owner


def _task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    context: Context | None = None,
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context)
    owner = OWNER.get() if context is None else context.get(OWNER)
    if owner is not None:
        owner.tasks.append(task)
        if len(owner.tasks) > _FORGET_DONE_TASKS_AT:
            owner.tasks[:] = [one for one in owner.tasks if not one.done()]
    return task


class VirtualClock:
    """The clock of every service."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return self._loop.wall()

    def monotonic(self) -> float:
        """Seconds since the beginning."""
        return self._loop.now
