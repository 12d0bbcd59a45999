"""Frames between a host's TAP and a guest's: a hypervisor's virtio, in a page."""

import asyncio
import errno
import os
from collections.abc import Callable

_FRAME = 65536 + 14
_BURST = 64
"""Frames in a row before others get their turn."""

_AWAY = {errno.EBADFD, errno.ENODEV}
"""The interface has been deleted."""
_LOST = {errno.EIO, errno.ENOBUFS, errno.EAGAIN}
"""The frame cannot be taken (interface down, queue full): it is lost, as on a wire."""


class Relay:
    """Two TAPs, each of which gets what is sent into the other."""

    def __init__(self, outer: int, inner: int, on_gone: Callable[[], None]) -> None:
        self._ends: tuple[int, ...] = (outer, inner)
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(outer, self._pass, outer, inner)
        self._loop.add_reader(inner, self._pass, inner, outer)

    def close(self) -> None:
        """Let go of both."""
        for descriptor in self._ends:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self._ends = ()

    def _pass(self, source: int, target: int) -> None:
        for _ in range(_BURST):
            try:
                frame = os.read(source, _FRAME)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EIO:  # the interface is down: nothing can come
                    return
                self._gone(error)
                return
            try:
                os.write(target, frame)
            except OSError as error:
                if error.errno not in _LOST:
                    self._gone(error)
                    return

    def _gone(self, error: OSError) -> None:
        if error.errno not in _AWAY:
            raise error
        self.close()
        self._on_gone()
