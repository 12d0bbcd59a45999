"""SQL files applied in the order of their names, once each, by yoyo."""

from pathlib import Path
from urllib.parse import urlencode, urlsplit, urlunsplit

import asyncpg
from yoyo import get_backend, read_migrations


async def migrate(database_url: str, *, schema: str, directory: Path) -> None:
    """Make the schema and bring it up to date. Two services that start at once do it one after the other."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("SELECT pg_advisory_lock(hashtext($1))", f"vmfabric-migrate-{schema}")
        exists = await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", schema)
        if not exists:
            await connection.execute(f"CREATE SCHEMA {_identifier(schema)}")
        _apply(database_url, schema, directory)
    finally:
        await connection.close()


def _identifier(schema: str) -> str:
    if not schema.isidentifier():
        raise ValueError(f"{schema!r} is not a name for a schema")
    return f'"{schema}"'


def _apply(database_url: str, schema: str, directory: Path) -> None:
    parts = urlsplit(database_url)
    backend = get_backend(
        urlunsplit(parts._replace(scheme="postgresql+psycopg", query=urlencode({"schema": schema})))
    )
    # No backend.lock(): yoyo's lock is a row, which a killed process leaves behind; ours ends with its session.
    backend.apply_migrations(backend.to_apply(read_migrations(str(directory))))
