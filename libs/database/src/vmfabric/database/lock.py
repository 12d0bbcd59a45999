"""One writer at a time: a session lock that Postgres gives up when the session ends, however it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import structlog

_CHECK_SECONDS = 2.0

log = structlog.get_logger()


class WriterLockLostError(Exception):
    """The session that holds the lock is gone, so another writer may have started."""


@asynccontextmanager
async def writer_lock(database_url: str, name: str) -> AsyncIterator[None]:
    """Wait until no other process holds this name; cancels the caller's task when the lock is lost meanwhile."""
    connection = await asyncpg.connect(
        database_url, timeout=10, server_settings={"application_name": f"vmfabric-lock-{name}"}
    )
    try:
        if not await connection.fetchval("SELECT pg_try_advisory_lock(hashtext($1))", name):
            log.info("writer.waiting", lock=name)
            await connection.execute("SELECT pg_advisory_lock(hashtext($1))", name)
        log.info("writer.active", lock=name)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_watch(connection, name))
            yield
            watch.cancel()
    finally:
        await connection.close(timeout=2)


async def _watch(connection: asyncpg.Connection, name: str) -> None:
    while True:
        await asyncio.sleep(_CHECK_SECONDS)
        try:
            await connection.fetchval("SELECT 1", timeout=5)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise WriterLockLostError(
                f"the session that holds the writer lock {name!r} is gone: another process may be the writer now"
            ) from error
