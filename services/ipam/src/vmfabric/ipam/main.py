"""Composition: what ipam is made of."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import asyncpg
import structlog
from prometheus_client import REGISTRY

from vmfabric.contract.errors import TryAgain
from vmfabric.contract.streams import FACT_STREAM
from vmfabric.database.lock import writer_lock
from vmfabric.database.migrations import migrate
from vmfabric.database.outbox import Relay
from vmfabric.database.pool import TRANSIENT, connect
from vmfabric.ipam.admin import Administration
from vmfabric.ipam.applying import Applying
from vmfabric.ipam.handlers import Handlers
from vmfabric.ipam.metrics import StockCollector
from vmfabric.ipam.records import PostgresRecords
from vmfabric.ipam.settings import IpamSettings
from vmfabric.ipam.store import SCHEMA, PostgresStore
from vmfabric.ipam.writer import SOURCE, Writer
from vmfabric.runtime import micro, service
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.clock import Clock
from vmfabric.runtime.consumer import Consumer
from vmfabric.runtime.service import Service

_MIGRATIONS = Path(__file__).with_name("migrations")
_END_RESTS_SECONDS = 0.5
_FORGET_SECONDS = 3600.0
_RETRY_SECONDS = 1.0
_LATER: tuple[type[BaseException], ...] = (TryAgain, *TRANSIENT)

log = structlog.get_logger()


def main() -> None:
    """Run until SIGTERM."""
    settings = IpamSettings()
    service.run(SOURCE, settings, lambda started: _compose(started, settings))


async def _compose(started: Service, settings: IpamSettings) -> None:
    started.tasks.create_task(_serve(started, settings))


async def _serve(started: Service, settings: IpamSettings) -> None:
    """A second ipam waits at the lock, and takes over where the first one ended."""
    async with (
        writer_lock(settings.database_url, SOURCE),
        await _database(settings) as pool,
        asyncio.TaskGroup() as tasks,
    ):
        relay = Relay(pool, started.bus)
        store = PostgresStore(pool)
        writer = Writer(store, started.clock, committed=relay.wake)
        applying = Applying(writer, store)
        admin = Administration(writer, applying, PostgresRecords(pool))
        REGISTRY.register(StockCollector(lambda: writer.stock))
        keep = timedelta(days=settings.fence_days), timedelta(days=settings.history_days)
        tasks.create_task(writer.run())
        tasks.create_task(relay.run())
        tasks.create_task(_after_each_reconnect(started.bus, applying.publish_pools))
        tasks.create_task(_every(_END_RESTS_SECONDS, writer.end_rests))
        tasks.create_task(_every(_FORGET_SECONDS, lambda: _forget(writer, store, started.clock, *keep)))
        tasks.create_task(
            micro.serve(
                started.bus, name=SOURCE, description="networks, pools and addresses", endpoints=admin.endpoints()
            )
        )
        # Not a task of the group: when the service stops, the group lives until the work in hand is committed.
        await Consumer(
            started.bus,
            stream=FACT_STREAM,
            durable=SOURCE,
            routes=Handlers(writer).routes(),
            transient=TRANSIENT,
        ).run()


async def _database(settings: IpamSettings) -> asyncpg.Pool:
    await migrate(settings.database_url, schema=SCHEMA, directory=_MIGRATIONS)
    return await connect(settings.database_url, schema=SCHEMA)


async def _forget(writer: Writer, store: PostgresStore, clock: Clock, fences: timedelta, history: timedelta) -> None:
    now = clock.now()
    await writer.alone(lambda _: store.forget(fences_before=now - fences, history_before=now - history))


async def _after_each_reconnect(bus: Bus, work: Callable[[], Awaitable[None]]) -> None:
    """At the start too: the bus may have lost everything while nobody looked."""
    due = asyncio.Event()
    due.set()
    bus.on_reconnect(due.set)
    while True:
        await due.wait()
        due.clear()
        if not await _try(work):
            due.set()
            await asyncio.sleep(_RETRY_SECONDS)


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await _try(work)


async def _try(work: Callable[[], Awaitable[None]]) -> bool:
    """Whether it was done; what fails because the database is away is tried again later."""
    try:
        await work()
    except _LATER as error:
        log.warning("ipam.again", work=getattr(work, "__qualname__", repr(work)), error=repr(error))
        return False
    return True
