"""Cancellations that are not lost.

`asyncio.wait_for` of Python 3.11 loses one that comes together with the result (python/cpython#86296, mended in
3.12), X end waits for ever: a service that should have been composed again stood still for good.
"""

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


def keep_cancellations() -> None:
    """Have `asyncio.wait_for` pass every cancellation on, in this process."""
    if sys.version_info < (3, 12):
        asyncio.wait_for = wait_for  # type: ignore[assignment]  # of what can be awaited, it takes all


async def wait_for(awaitable: Awaitable[T], timeout: float | None) -> T:  # noqa: ASYNC109  # as the one it replaces
    """As that of Python 3.12: TimeoutError after so many seconds."""
    async with asyncio.timeout(timeout):
        return await awaitable
