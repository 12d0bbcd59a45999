"""Worlds in which the writer is at work, with a network of each family."""

from collections.abc import AsyncIterator

import pytest
from ipam_world import InMemoryWorld, PostgresWorld, World, running

from vmfabric.database.migrations import migrate
from vmfabric.database.pool import connect
from vmfabric.ipam.main import MIGRATIONS
from vmfabric.ipam.writer import SOURCE


@pytest.fixture
async def in_memory() -> AsyncIterator[World]:
    world = InMemoryWorld()
    world.restart()
    async with running(world.writer):
        await _networks(world)
        yield world


@pytest.fixture
async def in_postgres(database_url: str) -> AsyncIterator[World]:
    await migrate(database_url, schema=SOURCE, directory=MIGRATIONS)
    pool = await connect(database_url, schema=SOURCE, size=3)
    world = PostgresWorld(pool)
    world.restart()
    async with running(world.writer):
        await _networks(world)
        yield world
    await pool.close()


async def _networks(world: World) -> None:
    await world.network("10.0.0.0/8")
    await world.network("2001:db8::/32", "six")
