"""SQL files applied in the order of their names, once each, by yoyo."""

from pathlib import Path
from urllib.parse import urlencode

import asyncpg
from psycopg.conninfo import conninfo_to_dict
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
    # All in the query: yoyo knows no URL with several hosts, libpq does.
    options = conninfo_to_dict(database_url) | {"schema": schema}
    backend = get_backend(f"postgresql+psycopg:///{options.pop('dbname', '')}?{urlencode(options)}")
    # No backend.lock(): yoyo's lock is a row, which a killed process leaves behind; ours ends with its session.
    backend.apply_migrations(backend.to_apply(read_migrations(str(directory))))
