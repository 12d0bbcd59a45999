"""The one writer: what waits is decided together, in memory, and written in one transaction."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from vmfabric.contract.envelope import outgoing
from vmfabric.contract.errors import Refused
from vmfabric.ipam import metrics
from vmfabric.ipam.domain.changes import Changes
from vmfabric.ipam.domain.history import What
from vmfabric.ipam.domain.lease import Given
from vmfabric.ipam.domain.leasing import Clerk, Notice
from vmfabric.ipam.domain.reserving import unreserved
from vmfabric.ipam.domain.stock import Stock
from vmfabric.ipam.ports import Store
from vmfabric.runtime.clock import Clock

SOURCE = "ipam"
"""What events from here name as their source."""

_BATCH = 256
_WAITING = 4096
_ENDED_AT_ONCE = 1000

R = TypeVar("R")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Heard:
    """A notice, to be decided and written together with others."""

    notice: Notice
    done: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Alone:
    """Work that nothing else runs beside."""

    work: Callable[[Stock], Awaitable[Any]]
    done: asyncio.Future[Any]


class Writer:
    """Serialises everything that changes addresses.

    Each call returns when its effect is committed. It raises when it is not, or may not be; the stock is then built
    anew from the store, and the same call later finds what has become of it.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._stock: Stock | None = None
        self._waiting: deque[_Heard | _Alone] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Semaphore(_WAITING)

    @property
    def stock(self) -> Stock | None:
        """What there is to give; None while it has to be built from the store."""
        return self._stock

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                await self._arrived.wait()
                await self.work_off()
        finally:
            for job in self._waiting:
                job.done.cancel()

    async def work_off(self) -> None:
        """Do all that waits right now."""
        while self._waiting:
            job = self._waiting.popleft()
            if isinstance(job, _Alone):
                await self._settle([job.done], self._do_alone(job))
            else:
                batch = self._batch_from(job)
                await self._settle([each.done for each in batch], self._write([each.notice for each in batch]))
        self._arrived.clear()

    async def hear(self, notice: Notice) -> None:
        """Do what follows from something that is said of a VM."""
        await self._submit(_Heard(notice, asyncio.get_running_loop().create_future()))

    async def alone(self, work: Callable[[Stock], Awaitable[R]]) -> R:
        """Do this while nothing else changes addresses. It may change the stock only where it has written that."""
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        await self._submit(_Alone(work, done))
        return done.result()

    async def current(self) -> Stock:
        """What there is to give, between two changes. Look at it before anything else is awaited."""
        return await self.alone(_itself)

    async def end_rests(self) -> None:
        """Free the addresses whose quarantine is over."""
        stock = self._stock
        if stock is None or stock.quarantine.is_due(self._clock.now()):
            await self.alone(self._end_rests)

    async def end_holds(self) -> None:
        """End the reservations that end by themselves."""
        stock = self._stock
        if stock is None or stock.reservations.holds.is_due(self._clock.now()):
            await self.alone(self._end_holds)

    async def _submit(self, job: _Heard | _Alone) -> None:
        async with self._room:
            self._waiting.append(job)
            self._arrived.set()
            await job.done

    def _batch_from(self, first: _Heard) -> list[_Heard]:
        """The notices that wait, of different VMs: a second one of the same VM needs the outcome of the first."""
        batch = [first]
        keys = {first.notice.key}
        while self._waiting and len(batch) < _BATCH:
            job = self._waiting[0]
            if isinstance(job, _Alone) or job.notice.key in keys:
                break
            self._waiting.popleft()
            keys.add(job.notice.key)
            batch.append(job)
        return batch

    async def _settle(self, waiting: Sequence[asyncio.Future[Any]], work: Awaitable[Any]) -> None:
        try:
            result = await work
        except asyncio.CancelledError:
            for done in waiting:
                done.cancel()
            raise
        except Exception as error:  # noqa: BLE001  # it goes to every caller that waits
            if not isinstance(error, Refused):
                # What was decided may or may not be written: only the store knows.
                self._stock = None
                log.warning("writer.failed", waiting=len(waiting), error=repr(error))
            for done in _open(waiting):
                done.set_exception(error)
        else:
            for done in _open(waiting):
                done.set_result(result)

    async def _do_alone(self, job: _Alone) -> Any:
        return await job.work(await self._current_stock())

    async def _write(self, notices: Sequence[Notice]) -> None:
        stock = await self._current_stock()
        leases = await self._store.leases([notice.key for notice in notices])
        clerk = Clerk(stock, self._clock.now())
        for notice in notices:
            clerk.hear(notice, leases.get(notice.key))
        await self._commit(clerk.changes)
        metrics.batch_size.observe(len(notices))

    async def _end_rests(self, stock: Stock) -> None:
        now = self._clock.now()
        while due := stock.quarantine.due(now, _ENDED_AT_ONCE):
            clerk = Clerk(stock, now)
            holdings = await self._store.holdings(due)
            if len(holdings) != len(due):
                raise LookupError(f"of {len(due)} addresses that rest, the store knows {len(holdings)}")
            for holding in holdings:
                clerk.end_rest(holding)
            await self._commit(clerk.changes)
            # Only now: an address that is given again in the transaction that frees it would be there twice.
            for holding in holdings:
                stock.free(Given(holding.address, holding.pool))

    async def _end_holds(self, stock: Stock) -> None:
        now = self._clock.now()
        while due := stock.reservations.holds.due(now, _ENDED_AT_ONCE):
            ended = [each for each in map(stock.reservations.get, due) if each is not None]
            await self._commit(unreserved(ended, What.EXPIRED, stock, now))
            for reservation in ended:
                stock.end_reservation(reservation)

    async def _commit(self, changes: Changes) -> None:
        if changes.is_empty():
            return
        now = self._clock.now()
        messages = [outgoing(event, source=SOURCE, trace=trace, at=now) for event, trace in changes.events]
        with metrics.commit_seconds.time():
            await self._store.commit(changes, messages)
        metrics.count(changes)

    async def _current_stock(self) -> Stock:
        if self._stock is None:
            content = await self._store.load()
            self._stock = Stock(content.networks, content.pools, content.in_use, content.reservations)
            log.info("writer.loaded", pools=len(content.pools), in_use=len(content.in_use))
        return self._stock


async def _itself(stock: Stock) -> Stock:
    return stock


def _open(waiting: Sequence[asyncio.Future[Any]]) -> list[asyncio.Future[Any]]:
    """Without those whose caller has given up."""
    return [done for done in waiting if not done.done()]
