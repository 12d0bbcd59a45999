"""The one desk where work on VMs is done: in order, and whatever waits together in one transaction.

A commit costs the database the same for one VM as for many, and placement on one cluster is serial anyway.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from vmfabric.database.pool import TRANSIENT
from vmfabric.scheduler import metrics
from vmfabric.scheduler.domain.record import VmKey
from vmfabric.scheduler.ports import Store
from vmfabric.scheduler.supplies import Supplies
from vmfabric.scheduler.transaction import Transaction, transaction

_BATCH = 256
_DATABASE_IS_AWAY: tuple[type[BaseException], ...] = (TimeoutError, *TRANSIENT)

Work = Callable[[Transaction], Awaitable[None]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Job:
    key: VmKey
    work: Work
    done: asyncio.Future[None]


class Desk:
    """Each call returns when its work is committed, and raises when it is not, or may not be."""

    def __init__(self, store: Store, *, committed: Callable[[], None], supplies: Supplies | None = None) -> None:
        """`committed` is called when messages may wait in the outbox. Without `supplies` new VMs are placed whether
        there are addresses for them or not.
        """
        self._store = store
        self._supplies = supplies
        self._committed = committed
        self._waiting: deque[_Job] = deque()
        self._arrived = asyncio.Event()

    async def place(self, key: VmKey, work: Work) -> None:
        """Work that may place this VM anew, with what pools have for it in mind."""
        if self._supplies is not None:
            await self._supplies.look(key.cluster)
        await self.do(key, work)

    async def do(self, key: VmKey, work: Work) -> None:
        """Work on this VM. It may be done twice, in two transactions of which the first is rolled back."""
        job = _Job(key, work, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._arrived.set()
        await job.done

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Work within this block. Those who bring the work have to end within it, so that none is left undone."""
        async with asyncio.TaskGroup() as group:
            working = group.create_task(self.run())
            yield
            working.cancel()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                await self.work_off()
        finally:
            for job in self._waiting:
                job.done.cancel()

    async def work_off(self) -> None:
        """Do all that waits right now."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]
            # Whoever gave up waiting will come again.
            batch = [job for job in batch if not job.done.done()]
            error = await self._try(batch)
            if error is None or len(batch) == 1 or isinstance(error, _DATABASE_IS_AWAY):
                _settle(batch, error)
                continue
            # One of them is at fault: alone, each gets what is its own.
            log.warning("desk.one_by_one", jobs=len(batch), error=repr(error))
            for job in batch:
                _settle([job], await self._try([job]))

    async def _try(self, batch: Sequence[_Job]) -> Exception | None:
        try:
            with metrics.commit_seconds.time():
                async with transaction(self._store, self._supplies) as tx:
                    await tx.hold([job.key for job in batch])
                    for job in batch:
                        await job.work(tx)
        except asyncio.CancelledError:
            for job in batch:
                job.done.cancel()
            raise
        except Exception as error:  # noqa: BLE001  # it goes to every caller that waits
            return error
        metrics.batch_size.observe(len(batch))
        self._committed()
        return None


def _settle(jobs: Sequence[_Job], error: Exception | None) -> None:
    for job in jobs:
        if job.done.done():
            continue
        if error is None:
            job.done.set_result(None)
        else:
            job.done.set_exception(error)
