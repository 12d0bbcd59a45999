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

    The backoff ends at a second: a look costs milliseconds, and what is repaired late is a guest without network.

    A key waits for one moment only: the last step that looked at it says when. So something that is never done costs
    one look per `Again.after`, however often it was looked at for another reason meanwhile.
    """

    def __init__(
        self,
        step: Step,
        *,
        throttle: float = 0.0,
        resync: float,
        backoff: float = 0.1,
        backoff_limit: float = 1.0,
    ) -> None:
        self._step = step
        self._throttle = throttle
        self._resync = resync
        self._backoff = backoff
        self._backoff_limit = backoff_limit
        self._failures = 0
        self._marks = _Marks(all=True)
        self._later: dict[str, float] = {}
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
            self._marks.keys.update(key for key, due in self._later.items() if loop.time() >= due)
            if self._marks:
                await asyncio.sleep(await self._once())
            else:
                await self._woken(min([resync_at, *self._later.values()]) - loop.time())

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
        self._look_again(dirty, again)
        return self._throttle

    def _look_again(self, dirty: Dirty, again: Again) -> None:
        if dirty.all:
            self._later.clear()
        for key in dirty.keys:
            self._later.pop(key, None)
        self._later.update(dict.fromkeys(again.keys, asyncio.get_running_loop().time() + again.after))

    async def _woken(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._wake.wait()
        except TimeoutError:
            return
