"""Fixtures for tests that need the real servers. Use with `pytest_plugins = ["vmfabric.lab.testing"]`."""

import asyncio
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import nats
import nats.js.errors
import pytest

from vmfabric.lab.servers import NatsServer, PostgresServer, free_port


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """A directory that an unprivileged server may enter."""
    with tempfile.TemporaryDirectory(prefix="vmfabric-test-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@pytest.fixture(scope="session")
def postgres_server(server_directory: Path) -> Iterator[PostgresServer]:
    """One Postgres for all tests of a session."""
    directory = server_directory / "postgres"
    directory.mkdir()
    with PostgresServer(directory, port=free_port()) as server:
        asyncio.run(server.start())
        yield server


@pytest.fixture(scope="session")
def nats_server(server_directory: Path) -> Iterator[NatsServer]:
    """One nats-server for all tests of a session."""
    directory = server_directory / "nats"
    directory.mkdir()
    with NatsServer(directory, port=free_port()) as server:
        asyncio.run(server.start())
        yield server


@pytest.fixture
async def database_url(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """An empty database of the test's own."""
    name = f"test_{uuid.uuid4().hex}"
    await _on_postgres(postgres_server, f"CREATE DATABASE {name}")
    yield postgres_server.url(name)
    await _on_postgres(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def nats_url(nats_server: NatsServer) -> str:
    """A server whose streams are empty: what an earlier test left is removed."""
    client = await nats.connect(nats_server.url)
    jetstream = client.jetstream()
    for stream in await jetstream.streams_info():
        await jetstream.delete_stream(stream.config.name or "")
    await client.close()
    return nats_server.url


async def _on_postgres(server: PostgresServer, statement: str) -> None:
    connection = await asyncpg.connect(server.url())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
