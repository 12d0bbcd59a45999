"""Receiving marks dirty; one loop applies what is dirty, in batches."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Dirty:
    """What to look at."""

    keys: frozenset[str]
    all: bool
    """Everything, whether marked or not."""


@dataclass(frozen=True, slots=True)
class Again:
    """What the step wants to look at once more, without being told."""

    keys: frozenset[str] = frozenset()
    after: float = 0.0
    """Seconds."""


Step = Callable[[Dirty], Awaitable[Again]]


@dataclass
class _Marks:
    keys: set[str] = field(default_factory=set)
    all: bool = False

    def take(self) -> Dirty:
        taken = Dirty(frozenset(self.keys), self.all)
        self.keys, self.all = set(), False
        return taken

    def __bool__(self) -> bool:
        return self.all or bool(self.keys)


class Loop:
    """Runs the step whenever something is marked, at most every `throttle` seconds, and over everything every
    `resync` seconds. A step that raises is tried again with backoff, with all that it was given.
    """

    def __init__(
        self,
        step: Step,
        *,
        throttle: float = 0.0,
        resync: float,
        backoff: float = 0.1,
        backoff_limit: float = 10.0,
    ) -> None:
        self._step = step
        self._throttle = throttle
        self._resync = resync
        self._backoff = backoff
        self._backoff_limit = backoff_limit
        self._failures = 0
        self._marks = _Marks(all=True)
        self._wake = asyncio.Event()

    def mark(self, *keys: str) -> None:
        """Look at these."""
        self._marks.keys.update(keys)
        self._wake.set()

    def mark_all(self) -> None:
        """Look at everything."""
        self._marks.all = True
        self._wake.set()

    async def run(self) -> None:
        """Reconcile until cancelled."""
        loop = asyncio.get_running_loop()
        resync_at = loop.time()
        while True:
            if loop.time() >= resync_at:
                self._marks.all = True
                resync_at = loop.time() + self._resync
            if self._marks:
                await asyncio.sleep(await self._once())
            else:
                await self._woken(resync_at - loop.time())

    async def _once(self) -> float:
        """One step; returns how long to rest."""
        self._wake.clear()
        dirty = self._marks.take()
        try:
            again = await self._step(dirty)
        except Exception:
            self._failures += 1
            self._marks.keys.update(dirty.keys)
            self._marks.all = self._marks.all or dirty.all
            rest = min(self._backoff * 2.0 ** (self._failures - 1), self._backoff_limit)
            log.exception("reconcile.failed", keys=sorted(dirty.keys)[:20], all=dirty.all, again_in_s=rest)
            return rest
        self._failures = 0
        if again.keys:
            asyncio.get_running_loop().call_later(again.after, self.mark, *again.keys)
        return self._throttle

    async def _woken(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._wake.wait()
        except TimeoutError:
            return
