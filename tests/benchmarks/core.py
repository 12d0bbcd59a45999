"""The core router's kernel, followed."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from vmfabric.lab.lab import Lab

SECONDS = 60.0


class CoreKernel:
    """When each IPv4 route came into the core's kernel, and when it went, as the kernel itself tells."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self.gone_at: dict[str, float] = {}
        self._news = asyncio.Condition()

    async def follow(self, lines: asyncio.StreamReader) -> None:
        while line := (await lines.readline()).decode():
            match line.split():
                case ["Deleted", route, *_]:
                    self.gone_at[route] = time.monotonic()
                case [route, *_]:
                    self.at.setdefault(route, time.monotonic())
                case _:
                    continue
            async with self._news:
                self._news.notify_all()

    async def wait(self, routes: Sequence[str]) -> float:
        """When the last of these was there."""
        async with asyncio.timeout(SECONDS), self._news:
            await self._news.wait_for(lambda: all(route in self.at for route in routes))
        return max(self.at[route] for route in routes)

    async def wait_until_gone(self, route: str, since: float, seconds: float) -> float | None:
        """When it went; None when it has not within so many seconds."""
        try:
            async with asyncio.timeout(seconds), self._news:
                await self._news.wait_for(lambda: self.gone_at.get(route, since) > since)
        except TimeoutError:
            return None
        return self.gone_at[route]


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
