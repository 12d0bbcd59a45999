"""Work that is done again and again, and waits for a database or a bus that is away."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from vmfabric.contract.errors import TryAgain
from vmfabric.database.pool import TRANSIENT

_RETRY_SECONDS = 1.0
_RETRIED: tuple[type[BaseException], ...] = (TryAgain, TimeoutError, *TRANSIENT)

log = structlog.get_logger()


class Repeated:
    """Calls `once` at the start, when woken, and every so many seconds; a second after it could not be done."""

    def __init__(self, name: str, once: Callable[[], Awaitable[object]], *, every: float) -> None:
        self._name = name
        self._once = once
        self._every = every
        self._now = asyncio.Event()

    def wake(self) -> None:
        """Do it now."""
        self._now.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._now.clear()
            pause = self._every
            try:
                await self._once()
            except _RETRIED as error:
                log.warning("repeated.waits", work=self._name, error=repr(error))
                pause = _RETRY_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._now.wait()
            except TimeoutError:
                continue
