"""Acknowledgements of many messages, from a real server."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from nats.js.errors import APIError, NoStreamResponseError

from vmfabric.contract.envelope import Outgoing
from vmfabric.runtime.acknowledged import Acknowledged
from vmfabric.runtime.bus import Bus


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with Bus(nats_url, name="test") as bus:
        await bus.connected()
        yield bus


@pytest.fixture
def acknowledged(bus: Bus) -> Acknowledged:
    return Acknowledged(bus.client, seconds=5)


def a_message(number: int, **headers: str) -> Outgoing:
    return Outgoing("vm.deleted.msk.vm1", str(number).encode(), headers)


async def test_all_messages_are_kept_in_their_order_when_it_returns(bus: Bus, acknowledged: Acknowledged) -> None:
    await asyncio.gather(
        acknowledged.publish([a_message(number) for number in range(1000)]),
        acknowledged.publish([]),
    )
    stream = bus.jetstream
    kept = [await stream.get_msg("FACTS", seq) for seq in (1, 500, 1000)]
    assert [message.data for message in kept] == [b"0", b"499", b"999"]


async def test_a_subject_that_no_stream_keeps_is_an_error_at_once(acknowledged: Acknowledged) -> None:
    with pytest.raises(NoStreamResponseError):
        await acknowledged.publish([a_message(1), Outgoing("nobody.keeps.this", b"", {})])


async def test_a_message_that_the_stream_refuses_is_an_error(acknowledged: Acknowledged) -> None:
    with pytest.raises(APIError, match="expected stream does not match"):
        await acknowledged.publish([a_message(1), a_message(2, **{"Nats-Expected-Stream": "OTHER"})])
    await acknowledged.publish([a_message(3)])
