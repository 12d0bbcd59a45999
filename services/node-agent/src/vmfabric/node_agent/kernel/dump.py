"""Reads whole tables of the kernel over netlink (RFC 3549, rtnetlink(7)).

pyroute2 decodes every attribute of every message, which at a thousand links takes longer than all the rest of a pass;
here only the attributes that are asked for are looked at.
"""

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_SOL_NETLINK = 270
_NETLINK_GET_STRICT_CHK = 12
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ATTRIBUTE_TYPE = 0x3FFF
_REQUEST_DUMP = 0x1 | 0x300
_DUMP_INTERRUPTED = 0x10
_ERROR, _DONE = 2, 3
_LARGEST = 1 << 17
"""More than the kernel puts into one answer (32 KiB)."""


class DumpInterruptedError(Exception):
    """The table changed while the kernel was telling it, so what was told is not one state; ask again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One message: its fixed part, and its attributes by number."""

    fixed: bytes
    attributes: Mapping[int, bytes]


class Dump:
    """A socket to ask with. The kernel applies filters in the request itself (NETLINK_GET_STRICT_CHK)."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def entries(self, kind: int, request: bytes, fixed_size: int) -> list[Entry]:
        """Everything that the kernel answers to this request of an RTM_GET* kind. OSError when it refuses it,
        DumpInterruptedError when it changed meanwhile.
        """
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(request), kind, _REQUEST_DUMP, self._sequence, 0)
        self._socket.send(header + request)
        found: list[Entry] = []
        interrupted = False
        for answer, flags, body in self._answers():
            interrupted = interrupted or bool(flags & _DUMP_INTERRUPTED)
            if answer in {_ERROR, _DONE}:
                _raise_refusal(body)
                break
            found.append(Entry(body[:fixed_size], attributes(body[_aligned(fixed_size) :])))
        if interrupted:
            raise DumpInterruptedError
        return found

    def _answers(self) -> Iterator[tuple[int, int, bytes]]:
        while True:
            data = self._socket.recv(_LARGEST)
            offset = 0
            while offset < len(data):
                length, kind, flags, sequence, _port = _HEADER.unpack_from(data, offset)
                # What is left of a dump that an error cut short belongs to nobody.
                if sequence == self._sequence:
                    yield kind, flags, data[offset + _HEADER.size : offset + length]
                offset += _aligned(length)


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes that stand one behind the other, by number; of several with one number, the last."""
    return dict(attribute_list(data))


def attribute_list(data: bytes) -> Iterator[tuple[int, bytes]]:
    """All of them, in order."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            raise OSError(f"netlink: an attribute of {length} bytes is shorter than its own header")
        yield kind & _ATTRIBUTE_TYPE, data[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute for a request."""
    padding = bytes(_aligned(len(data)) - len(data))
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + padding


def _raise_refusal(body: bytes) -> None:
    (negative,) = struct.unpack_from("=i", body) if len(body) >= 4 else (0,)
    if negative:
        raise OSError(-negative, f"netlink: {os.strerror(-negative)}")


def _aligned(length: int) -> int:
    return (length + 3) & ~3
