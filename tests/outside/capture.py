"""Frames as tcpdump shows them, to see what really passes."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vmfabric.lab import namespaces


@asynccontextmanager
async def captured(namespace: str, interface: str, expression: str) -> AsyncIterator[list[str]]:
    """What comes in by an interface of a namespace while the block lasts, with its link-layer header; the lines are
    there when the block has ended.
    """
    command = (
        "tcpdump",
        "--immediate-mode",
        "-n",
        "-e",
        "-q",
        "-U",
        "-l",
        "-Q",
        "in",
        "-i",
        interface,
        *expression.split(),
    )
    process = await asyncio.create_subprocess_exec(
        *namespaces.inside(namespace, *command), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    while b"listening on" not in (said := await process.stderr.readline()):
        assert said, "tcpdump has ended before it has listened"
    lines: list[str] = []
    try:
        yield lines
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = await asyncio.wait_for(process.communicate(), 10)
        lines += filter(None, output.decode().splitlines())
