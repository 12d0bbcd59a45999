"""Hears that the kernel changed. What changed is read afterwards; this only wakes."""

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from vmfabric.contract.dataplane import KERNEL_PROTOCOL

_NETLINK_NETFILTER = 12

# linux/rtnetlink.h, RTMGRP_*
_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV6_ADDRESS, _IPV6_ROUTE = 0x1, 0x10, 0x40, 0x100, 0x400
_IPV4_NETCONF, _IPV6_NETCONF = 1 << 23, 1 << 24
_RTNETLINK_GROUPS = _LINK | _IPV4_ADDRESS | _IPV4_ROUTE | _IPV6_ADDRESS | _IPV6_ROUTE | _IPV4_NETCONF | _IPV6_NETCONF
_NFTABLES_GROUP = 1 << 6  # NFNLGRP_NFTABLES is 7

_ROUTE_MESSAGES = (24, 25)  # RTM_NEWROUTE, RTM_DELROUTE
_HEADER = struct.Struct("=IHHII")
_ROUTE_PROTOCOL_AT = _HEADER.size + 5  # struct rtmsg
_LARGEST = 1 << 16


class Watch:
    """Calls `on_change` once, `quiet` seconds after the first of a burst of changes.

    The rest of the burst is not listened to: to be woken by each change would hold up whoever makes them.
    """

    def __init__(self, on_change: Callable[[], None], *, quiet: float = 0.2) -> None:
        self._on_change = on_change
        self._quiet = quiet
        self._sockets: list[socket.socket] = []
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        for protocol, groups in ((socket.NETLINK_ROUTE, _RTNETLINK_GROUPS), (_NETLINK_NETFILTER, _NFTABLES_GROUP)):
            listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
            listener.bind((0, groups))
            self._sockets.append(listener)
        self._listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turn_away()
        for listener in self._sockets:
            listener.close()
        if self._timer is not None:
            self._timer.cancel()

    def _listen(self) -> None:
        for listener in self._sockets:
            asyncio.get_running_loop().add_reader(listener.fileno(), self._readable, listener)

    def _turn_away(self) -> None:
        for listener in self._sockets:
            asyncio.get_running_loop().remove_reader(listener.fileno())

    def _readable(self, listener: socket.socket) -> None:
        try:
            data = listener.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:
            # ENOBUFS: changes came faster than we read, so some are lost, which is a change too.
            self._changed()
            return
        if any(_concerns_us(kind, message) for kind, message in _messages(data)):
            self._changed()

    def _changed(self) -> None:
        if self._timer is None:
            self._turn_away()
            self._timer = asyncio.get_running_loop().call_later(self._quiet, self._tell)

    def _tell(self) -> None:
        self._timer = None
        for listener in self._sockets:
            _drain(listener)
        self._listen()
        self._on_change()


def _drain(listener: socket.socket) -> None:
    """What has come until now is a part of the change that is told."""
    while True:
        try:
            listener.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:
            # ENOBUFS, once: the kernel has dropped what did not fit. What did is read on.
            continue


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_rest = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, data[offset : offset + length]
        offset += (length + 3) & ~3


def _concerns_us(kind: int, message: bytes) -> bool:
    # FRR's routes come by the ten thousand, and are none of our business.
    return kind not in _ROUTE_MESSAGES or message[_ROUTE_PROTOCOL_AT] == KERNEL_PROTOCOL
