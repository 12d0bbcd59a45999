"""What has to happen though nobody says anything: late answers, silent nodes, old memories."""

import asyncio
from datetime import timedelta

import structlog

from vmfabric.contract.errors import TryAgain
from vmfabric.database.pool import TRANSIENT
from vmfabric.runtime.clock import Clock
from vmfabric.scheduler.draining import Draining
from vmfabric.scheduler.handlers import Handlers
from vmfabric.scheduler.nodes import Nodes
from vmfabric.scheduler.ports import Store
from vmfabric.scheduler.transaction import transaction

_BATCH = 500
_REMEMBER = timedelta(days=8)
"""Longer than the stream keeps requests, so that none can come again unrecognised."""
_RETRIED: tuple[type[BaseException], ...] = (TryAgain, TimeoutError, *TRANSIENT)

log = structlog.get_logger()


class Sweep:
    """Looks after everything that is due, every `interval` seconds."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        handlers: Handlers,
        nodes: Nodes,
        draining: Draining,
        *,
        interval: float = 0.5,
    ) -> None:
        self._store = store
        self._clock = clock
        self._handlers = handlers
        self._nodes = nodes
        self._draining = draining
        self._interval = interval
        self._forget_at = clock.now()

    async def run(self) -> None:
        """Sweep until cancelled; a database that is away is waited for."""
        while True:
            try:
                await self.once()
            except _RETRIED as error:
                log.warning("sweep.waits", error=repr(error))
            await asyncio.sleep(self._interval)

    async def once(self) -> None:
        """One round."""
        now = self._clock.now()
        await self._nodes.review()
        await self._draining.review()
        async with transaction(self._store) as tx:
            due = await tx.rows.due_vms(now, _BATCH)
        # Not a TaskGroup: in Python 3.11 one that fails leaves its task half cancelled, and a later time-out in it
        # would be taken for a cancellation.
        done = await asyncio.gather(*(self._handlers.look_after(key) for key in due), return_exceptions=True)
        for key, error in zip(due, done, strict=True):
            if isinstance(error, _RETRIED):
                raise error
            if error is not None:
                # One that cannot be looked after does not stand in the way of the others.
                log.error("vm.not_looked_after", **key._asdict(), exc_info=error)
        if now >= self._forget_at:
            self._forget_at = now + timedelta(hours=1)
            async with transaction(self._store) as tx:
                tx.changes.forget_before = now - _REMEMBER
