"""Asks a neighbour whether it is there, and hears what it says."""

import asyncio
import socket

from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.neighbour import Question

_ETH_P_ALL = 0x0003
_AGAIN_SECONDS = 0.1
_FRAME = 128
"""As much of a frame as is looked at."""


def open_on(interface: InterfaceName) -> socket.socket:
    """For one question. OSError when the link is not there."""
    asked = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL))
    try:
        asked.bind((interface, _ETH_P_ALL))
    except OSError:
        asked.close()
        raise
    return asked


async def ask(asked: socket.socket, question: Question, seconds: float) -> bool:
    """Whether it answers within this time. OSError when the link is down."""
    now = asyncio.get_running_loop().time
    frame = question.frame(asked.getsockname()[4].hex(":"))
    end = now() + seconds
    while now() < end:
        asked.send(frame)
        if await _is_answered(asked, question):
            return True
    return False


async def _is_answered(asked: socket.socket, question: Question) -> bool:
    try:
        async with asyncio.timeout(_AGAIN_SECONDS):
            while not question.is_answered_by(await asyncio.get_running_loop().sock_recv(asked, _FRAME)):
                pass
    except TimeoutError:
        return False
    return True
