"""One writer at a time: a session lock that Postgres gives up when the session ends, however it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import structlog

from vmfabric.database.pool import TRANSIENT
from vmfabric.runtime.service import Interrupted

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 5.0
_CHECK_SECONDS = 2.0
_ASK_SECONDS = 0.25

_AWAY: tuple[type[BaseException], ...] = (TimeoutError, *TRANSIENT)

log = structlog.get_logger()


class WriterLockLostError(Interrupted):
    """The session that holds the lock is gone, so another writer may have started."""


@asynccontextmanager
async def writer_lock(database_url: str, name: str) -> AsyncIterator[None]:
    """Wait until no other process holds this name; cancels the caller's task when the lock is lost meanwhile.

    Interrupted when the database goes away while it is waited for.
    """
    try:
        connection = await _session(database_url, name)
    except _AWAY as error:
        raise Interrupted(f"Postgres, which has the writer lock {name!r}, does not answer: {error!r}") from error
    try:
        try:
            await _acquire(connection, name)
        except _AWAY as error:
            raise Interrupted(f"Postgres went away while the writer lock {name!r} was waited for") from error
        log.info("writer.active", lock=name)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_watch(connection, name))
            yield
            watch.cancel()
    finally:
        await _close(connection)


async def _session(database_url: str, name: str) -> asyncpg.Connection:
    return await asyncpg.connect(
        database_url,
        timeout=_CONNECT_SECONDS,
        server_settings={
            "application_name": f"vmfabric-lock-{name}",
            # A holder whose host has died, or is cut off, must not keep the lock from the other one.
            "tcp_keepalives_idle": "2",
            "tcp_keepalives_interval": "2",
            "tcp_keepalives_count": "2",
        },
    )


async def _acquire(connection: asyncpg.Connection, name: str) -> None:
    # Asked again and again: a session that waits inside of Postgres would not notice that Postgres is gone.
    waiting = False
    while not await connection.fetchval("SELECT pg_try_advisory_lock(hashtext($1))", name, timeout=_ANSWER_SECONDS):
        if not waiting:
            waiting = True
            log.info("writer.waiting", lock=name)
        await asyncio.sleep(_ASK_SECONDS)


async def _watch(connection: asyncpg.Connection, name: str) -> None:
    ended = asyncio.Event()
    connection.add_termination_listener(lambda _connection: ended.set())
    while True:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await ended.wait()
        except TimeoutError:
            pass
        try:
            await connection.fetchval("SELECT 1", timeout=_ANSWER_SECONDS)
        except _AWAY as error:
            raise WriterLockLostError(
                f"the session that holds the writer lock {name!r} is gone: another process may be the writer now"
            ) from error


async def _close(connection: asyncpg.Connection) -> None:
    try:
        await connection.close(timeout=2)
    except _AWAY as error:
        # Postgres ends the session, and with it the lock, by itself.
        log.warning("writer.session_not_closed", error=repr(error))
