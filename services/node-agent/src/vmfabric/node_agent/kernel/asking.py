"""Asks a neighbour whether it is there, and hears what it says."""

import socket
import time

from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.neighbour import Question

_ETH_P_ALL = 0x0003
_SECONDS = 1.0
_AGAIN_SECONDS = 0.1
_FRAME = 128
"""As much of a frame as is looked at."""


def ask(interface: InterfaceName, question: Question) -> bool:
    """Whether it answers within about a second. OSError when the link is not there, or down."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as asked:
        asked.bind((interface, _ETH_P_ALL))
        mac = asked.getsockname()[4].hex(":")
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            asked.send(question.frame(mac))
            if _is_answered(asked, question, time.monotonic() + _AGAIN_SECONDS):
                return True
    return False


def _is_answered(asked: socket.socket, question: Question, until: float) -> bool:
    while (left := until - time.monotonic()) > 0:
        asked.settimeout(left)
        try:
            if question.is_answered_by(asked.recv(_FRAME)):
                return True
        except TimeoutError:
            return False
    return False
