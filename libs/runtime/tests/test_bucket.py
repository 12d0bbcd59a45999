"""A bucket that has lost what it had, against a real server."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from vmfabric.contract.desired import BUCKET
from vmfabric.runtime.bucket import watch_bucket
from vmfabric.runtime.bus import Bus

CHECK_SECONDS = 0.05


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with Bus(nats_url, name="test") as bus:
        await bus.connected()
        yield bus


async def test_a_bucket_that_is_deleted_is_made_anew_and_that_is_said_once(bus: Bus) -> None:
    said: list[str] = []
    watching = asyncio.create_task(watch_bucket(bus, lambda: said.append("anew"), every=CHECK_SECONDS))
    try:
        await asyncio.sleep(10 * CHECK_SECONDS)
        assert not said
        await bus.jetstream.delete_stream(f"KV_{BUCKET}")
        async with asyncio.timeout(10):
            while not said:
                await asyncio.sleep(CHECK_SECONDS)
        await asyncio.sleep(10 * CHECK_SECONDS)
        assert said == ["anew"]
        assert (await bus.jetstream.stream_info(f"KV_{BUCKET}")).state.messages == 0
    finally:
        watching.cancel()
