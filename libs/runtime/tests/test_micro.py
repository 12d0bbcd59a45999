"""Request and reply against a real server."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from vmfabric.contract.admin import Applied, Change, ListOfCluster
from vmfabric.contract.errors import Code, Refused, TryAgain
from vmfabric.runtime import micro
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.micro import Endpoint, request, serve


async def answer(asked: ListOfCluster) -> Applied:
    match asked.cluster:
        case "refused":
            raise Refused(Code.UNKNOWN_CLUSTER, "there is no cluster refused; cluster.list shows what there is")
        case "broken":
            raise ZeroDivisionError
        case "slow":
            await asyncio.sleep(60)
            raise AssertionError("nobody waits that long")
        case _:
            return Applied(kind="cluster", name=asked.cluster or "all", change=Change.UNCHANGED, dry_run=False)


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with Bus(nats_url, name="test") as bus:
        endpoints = [Endpoint("test.list", ListOfCluster, answer, "a test")]
        task = asyncio.create_task(serve(bus, name="test", description="a test", endpoints=endpoints))
        await bus.connected()
        async with asyncio.timeout(5):
            while True:
                try:
                    await request(bus.client, "test.list", b"{}")
                except TryAgain:
                    await asyncio.sleep(0.01)
                else:
                    break
        yield bus
        task.cancel()
        await asyncio.wait({task})


async def test_a_request_is_answered(bus: Bus) -> None:
    assert json.loads(await request(bus.client, "test.list", b'{"cluster":"msk"}'))["name"] == "msk"


async def test_a_refusal_carries_its_code_and_sentence(bus: Bus) -> None:
    with pytest.raises(Refused, match="cluster.list shows") as caught:
        await request(bus.client, "test.list", b'{"cluster":"refused"}')
    assert caught.value.code is Code.UNKNOWN_CLUSTER


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"nope":1}', b'{"cluster":"a.b"}', b'{"limit":"5"}'])
async def test_bad_input_is_refused_and_the_next_request_is_served(bus: Bus, body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        await request(bus.client, "test.list", body)
    assert caught.value.code is Code.INVALID_REQUEST
    await request(bus.client, "test.list", b"{}")


async def test_who_asks_a_service_that_starts_is_told_to_ask_again(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro, "_HANDLER_SECONDS", 0.05)
    with pytest.raises(Refused, match=r"test.list was not done within 0.05 s: .*; ask again"):
        await request(bus.client, "test.list", b'{"cluster":"slow"}')
    await request(bus.client, "test.list", b"{}")


async def test_errors_are_counted_in_the_statistics(bus: Bus) -> None:
    with pytest.raises(Refused) as caught:
        await request(bus.client, "test.list", b'{"cluster":"broken"}')
    assert caught.value.code is Code.INTERNAL
    stats = json.loads((await bus.client.request("$SRV.STATS.test", b"")).data)
    assert stats["endpoints"][0]["num_errors"] == 1
    assert stats["endpoints"][0]["data"] == {}
