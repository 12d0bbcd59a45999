"""The routes of a router's kernel, followed."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from vmfabric.lab.lab import Lab

SECONDS = 60.0
_BUFFER = "8388608"
"""More than a thousand routes at once take; the kernel drops what does not fit."""


class KernelRoutes:
    """When each route came into the kernel and went from it, as the kernel itself tells; times are monotonic."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        """When it came first."""
        self.gaps: list[tuple[str, float]] = []
        """Those that went and came back, and for how long they were away."""
        self._gone: dict[str, float] = {}
        self._news = asyncio.Condition()

    def forget(self) -> None:
        """Begin anew."""
        self.at.clear()
        self.gaps.clear()
        self._gone.clear()

    def away(self) -> Collection[str]:
        """Those that have gone and not come back."""
        return self._gone.keys()

    async def follow(self, lines: asyncio.StreamReader) -> None:
        while line := (await lines.readline()).decode():
            words = line.split()
            if words and words[0] == "Deleted":
                self._gone[words[1]] = time.monotonic()
            elif words:
                self._came(words[0])
            async with self._news:
                self._news.notify_all()

    async def wait(self, routes: Collection[str]) -> float:
        """When the last of these was there."""
        async with asyncio.timeout(SECONDS), self._news:
            await self._news.wait_for(lambda: all(route in self.at for route in routes))
        return max(self.at[route] for route in routes)

    def _came(self, route: str) -> None:
        now = time.monotonic()
        self.at.setdefault(route, now)
        gone = self._gone.pop(route, None)
        if gone is not None:
            self.gaps.append((route, now - gone))


@asynccontextmanager
async def kernel_routes(lab: Lab, host: str = "core") -> AsyncIterator[KernelRoutes]:
    """While the block lasts."""
    process = await asyncio.create_subprocess_exec(
        *("ip", "-rcvbuf", _BUFFER, "-n", lab.namespace(host), "monitor", "route"), stdout=subprocess.PIPE
    )
    kernel = KernelRoutes()
    following = asyncio.create_task(kernel.follow(process.stdout)) if process.stdout else None
    try:
        yield kernel
    finally:
        process.kill()
        await process.wait()
        if following is not None:
            await following
