"""The one writer of a schema: from the lock to the connections."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psycopg

from vmfabric.database.lock import writer_lock
from vmfabric.database.migrations import migrate
from vmfabric.database.pool import TRANSIENT, connect
from vmfabric.runtime.service import Interrupted

_AWAY: tuple[type[BaseException], ...] = (TimeoutError, psycopg.OperationalError, *TRANSIENT)


@asynccontextmanager
async def writer(
    database_url: str, *, schema: str, migrations: Path, connections: int = 10
) -> AsyncIterator[asyncpg.Pool]:
    """Wait until no other process writes this schema, bring it up to date, and connect to it.

    Interrupted, in this block too, when the database goes away.
    """
    async with writer_lock(database_url, schema):
        try:
            await migrate(database_url, schema=schema, directory=migrations)
            pool = await connect(database_url, schema=schema, size=connections)
        except _AWAY as error:
            raise Interrupted(f"Postgres went away while schema {schema} was prepared: {error!r}") from error
        try:
            yield pool
        finally:
            pool.terminate()
