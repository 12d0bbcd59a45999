"""How much gets from one network namespace to another."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TypeVar

from pyroute2 import netns

T = TypeVar("T")

_PORT = 5201
_CHUNK = bytes(1400)
_SECONDS_TO_CONNECT = 5.0
_READ_SECONDS = 0.1
_SO_RCVBUFFORCE = 33
"""Of Linux; the module socket has no name for it. What the receiver has no time for is not what the limit dropped."""


def inside(namespace: str, call: Callable[[], T]) -> T:
    """Run it in a thread that is in that namespace; sockets that it opens stay there."""

    def work() -> T:
        netns.setns(namespace)
        return call()

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(work).result()


def tcp_kbit(source: str, target: str, address: str, *, after: float, seconds: float) -> float:
    """Payload of one connection to `address` in `target`, in kbit/s, counted for so long after so many seconds."""
    with (
        inside(target, lambda: socket.create_server((address, _PORT))) as server,
        inside(source, lambda: socket.create_connection((address, _PORT), _SECONDS_TO_CONNECT)) as sender,
        server.accept()[0] as receiver,
    ):
        sender.settimeout(_READ_SECONDS)
        return _measured(lambda: sender.send(_CHUNK * 32), receiver, after, seconds)


def udp_kbit(source: str, target: str, address: str, *, after: float, seconds: float) -> float:
    """The same of datagrams of 1400 octets, sent as fast as one thread can."""
    with (
        inside(target, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver,
        inside(source, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 23)
        receiver.bind((address, _PORT))
        sender.connect((address, _PORT))
        return _measured(lambda: sender.send(_CHUNK), receiver, after, seconds)


def _measured(send: Callable[[], object], receiver: socket.socket, after: float, seconds: float) -> float:
    is_over = Event()

    def sending() -> None:
        while not is_over.is_set():
            try:
                send()
            except TimeoutError:
                continue

    with ThreadPoolExecutor(max_workers=1) as thread:
        sent = thread.submit(sending)
        try:
            receiver.settimeout(_READ_SECONDS)
            _received(receiver, until=time.monotonic() + after)
            start = time.monotonic()
            octets = _received(receiver, until=start + seconds)
            return octets * 8 / 1000 / (time.monotonic() - start)
        finally:
            is_over.set()
            sent.result()


def _received(receiver: socket.socket, until: float) -> int:
    octets = 0
    while time.monotonic() < until:
        try:
            octets += len(receiver.recv(1 << 16))
        except TimeoutError:
            continue
    return octets
