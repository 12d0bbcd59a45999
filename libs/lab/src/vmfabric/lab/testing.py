"""Fixtures for tests that need the real servers. Use with `pytest_plugins = ["vmfabric.lab.testing"]`."""

import asyncio
import os
import re
import tempfile
import uuid
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import nats
import nats.js.errors
import pytest

from vmfabric.lab import diagnosis
from vmfabric.lab import making as labs
from vmfabric.lab.client import LabClient, connect
from vmfabric.lab.lab import Lab
from vmfabric.lab.servers import NatsServer, PostgresServer, free_port
from vmfabric.lab.state import State
from vmfabric.lab.topology import Topology, load


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
    with PostgresServer(directory, port=free_port(), survives_power_cuts=False) as server:
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


def own_topology(letter: str, which: str | None = None) -> Topology:
    """A topology of the lab's own, under a name and a port that no other lab on this machine has."""
    return load(which).model_copy(update={"name": f"{letter}{os.getpid():x}", "port": free_port()})


@contextmanager
def own_state() -> Iterator[State]:
    """A directory for a lab of the test's own; at the end the lab is taken down."""
    with tempfile.TemporaryDirectory(prefix="vmfabric-lab-") as name:
        Path(name).chmod(0o755)  # FRR and Postgres run as users of their own
        state = State(Path(name) / "lab")
        try:
            yield state
        finally:
            labs.down(state)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The default lab with all services, for end-to-end tests; nothing has been applied to it. A guest that moves has
    20 s, so that a test can wait for the end of that.
    """
    with own_state() as state:
        yield labs.up(own_topology("l").model_copy(update={"settings": {"VMFABRIC_MIGRATION_SECONDS": "20"}}), state)


@pytest.fixture
async def outside(lab: Lab) -> AsyncIterator[LabClient]:
    """Somebody outside who hears every event of the lab from the beginning of the test."""
    async with connect(lab.nats_url) as client:
        yield client


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write down what every host of the test's lab says when the test has failed."""
    report = yield
    arguments: dict[str, Any] = getattr(item, "funcargs", {})
    used = next((value for value in arguments.values() if isinstance(value, Lab)), None)
    if report.failed and report.when == "call" and used is not None:
        directory = item.config.rootpath / "build" / "failed" / re.sub(r"[^\w.-]+", "-", item.name)
        diagnosis.write(used, directory)
        report.sections.append(("Lab", f"what every host, router, process and the bus said is in {directory}"))
    return report


async def _on_postgres(server: PostgresServer, statement: str) -> None:
    connection = await asyncpg.connect(server.url())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
