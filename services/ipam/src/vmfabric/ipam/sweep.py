"""What is due by the clock: quarantines and holds that end, and memories that are old enough."""

import asyncio
from datetime import timedelta

import structlog

from vmfabric.contract.errors import TryAgain
from vmfabric.database.pool import TRANSIENT
from vmfabric.ipam.domain.stock import Stock
from vmfabric.ipam.ports import Store
from vmfabric.ipam.writer import Writer
from vmfabric.runtime.clock import Clock

_LOOK_SECONDS = 0.5
_FORGET_SECONDS = 3600.0
_RETRIED: tuple[type[BaseException], ...] = (TryAgain, TimeoutError, *TRANSIENT)

log = structlog.get_logger()


class Sweep:
    """Looks often, and does something seldom."""

    def __init__(self, writer: Writer, store: Store, clock: Clock, *, fences: timedelta, history: timedelta) -> None:
        """Released leases are remembered for `fences`, and who had an address for `history`."""
        self._writer = writer
        self._store = store
        self._clock = clock
        self._fences = fences
        self._history = history
        self._forget_at = clock.monotonic()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self.once()
            except _RETRIED as error:
                log.warning("sweep.waits", error=repr(error))

    async def once(self) -> None:
        """Do what is due."""
        await self._writer.end_rests()
        await self._writer.end_holds()
        if self._clock.monotonic() >= self._forget_at:
            await self._writer.alone(self._forget)
            self._forget_at = self._clock.monotonic() + _FORGET_SECONDS

    async def _forget(self, _stock: Stock) -> None:
        now = self._clock.now()
        await self._store.forget(fences_before=now - self._fences, history_before=now - self._history)
