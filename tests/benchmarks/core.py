"""The core router's kernel, followed."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from vmfabric.lab.lab import Lab

SECONDS = 60.0


class CoreKernel:
    """When each IPv4 route came into the core's kernel, as the kernel itself tells."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self._news = asyncio.Condition()

    async def follow(self, lines: asyncio.StreamReader) -> None:
        while line := (await lines.readline()).decode():
            words = line.split()
            if words and words[0] != "Deleted":
                self.at.setdefault(words[0], time.monotonic())
                async with self._news:
                    self._news.notify_all()

    async def wait(self, routes: Sequence[str]) -> float:
        """When the last of these was there."""
        async with asyncio.timeout(SECONDS), self._news:
            await self._news.wait_for(lambda: all(route in self.at for route in routes))
        return max(self.at[route] for route in routes)


@asynccontextmanager
async def core_kernel(lab: Lab) -> AsyncIterator[CoreKernel]:
    """While the block lasts."""
    process = await asyncio.create_subprocess_exec(
        *("ip", "-4", "-n", lab.namespace("core"), "monitor", "route"), stdout=subprocess.PIPE
    )
    kernel = CoreKernel()
    following = asyncio.create_task(kernel.follow(process.stdout)) if process.stdout else None
    try:
        yield kernel
    finally:
        process.kill()
        await process.wait()
        if following is not None:
            await following
