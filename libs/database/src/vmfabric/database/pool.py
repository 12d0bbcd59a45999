"""Connections to one schema, with Python's own types for inet, cidr and jsonb."""

import json

import asyncpg
from asyncpg.exceptions import TargetServerAttributeNotMatched
from asyncpg.pool import PoolConnectionProxy

Connection = asyncpg.Connection | PoolConnectionProxy
"""A connection, of its own or lent by a pool."""

TRANSIENT: tuple[type[BaseException], ...] = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.ReadOnlySQLTransactionError,
    TargetServerAttributeNotMatched,
    OSError,
)
"""Errors of a database that is away, busy, or not promoted yet: the same work succeeds later."""


async def connect(database_url: str, *, schema: str, size: int = 10) -> asyncpg.Pool:
    """A pool whose connections see only this schema. inet and cidr come as `ipaddress` objects, jsonb as Python's."""
    return await asyncpg.create_pool(
        database_url,
        min_size=min(2, size),
        max_size=size,
        command_timeout=10,
        timeout=10,
        init=_prepare,
        reset=_keep,
        server_settings={"search_path": schema, "application_name": f"vmfabric-{schema}"},
    )


async def _prepare(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


async def _keep(_connection: asyncpg.Connection) -> None:
    """Sessions of this pool take no lock, listen to nothing and change no setting: the default reset, one more round
    trip for every statement, would undo nothing. An open transaction is rolled back without it.
    """
