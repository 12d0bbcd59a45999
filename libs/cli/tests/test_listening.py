"""Watching goes on through everything, and misses nothing."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats
import pytest
from nats.js.api import StreamConfig

from vmfabric.cli.listening import Back, Heard, Listener, Lost, News
from vmfabric.cli.watch import in_order
from vmfabric.contract.streams import DEAD_STREAM, FACT_STREAM, REQUEST_STREAM
from vmfabric.lab.servers import NatsServer, free_port

SOON = 6.0
"""Seconds. nats-py's own ordered consumers stay silent for up to 17 after a server's restart."""


class Watched:
    """A server of its own, and what a listener tells."""

    def __init__(self, directory: Path) -> None:
        self.server = NatsServer(directory, port=free_port())
        self.told: list[News] = []
        self.news = asyncio.Condition()

    async def publish(self, *subjects: str) -> None:
        async with await nats.connect(self.server.url) as client:
            for stream in (REQUEST_STREAM, FACT_STREAM, DEAD_STREAM):
                await client.jetstream().add_stream(StreamConfig(name=stream.name, subjects=list(stream.subjects)))
            for subject in subjects:
                await client.jetstream().publish(subject, subject.encode())

    def heard(self) -> list[str]:
        return [news.subject for news in self.told if isinstance(news, Heard)]

    def backs(self) -> list[Back]:
        return [news for news in self.told if isinstance(news, Back)]

    async def until(self, subjects: list[str]) -> None:
        async with asyncio.timeout(SOON):
            while sorted(self.heard()) != sorted(subjects):
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        listener = Listener(self.server.url, self.told.append)
        async with await nats.connect(self.server.url) as client:
            await listener.begin(client)
        task = asyncio.create_task(listener.run())
        yield
        assert not task.done(), "it listens for ever"
        task.cancel()


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    watched = Watched(tmp_path)
    with watched.server:
        await watched.server.start()
        yield watched


async def test_what_was_published_before_is_not_told_and_everything_after_is(watched: Watched) -> None:
    await watched.publish("vm.requested")
    async with watched.listening():
        await watched.publish("vm.placed.msk.vm1", "dead.vm.requested", "vm.delete.requested")
        await watched.until(["vm.placed.msk.vm1", "dead.vm.requested", "vm.delete.requested"])


async def test_a_stream_that_is_made_later_is_told_from_its_beginning(watched: Watched) -> None:
    async with watched.listening():
        await watched.publish("vm.requested")
        await watched.until(["vm.requested"])


async def test_a_server_that_restarts_again_and_again_costs_no_event(watched: Watched) -> None:
    await watched.publish()
    expected = ["vm.placed.msk.first"]
    async with watched.listening():
        await watched.publish(*expected)
        await watched.until(expected)  # it is connected, so it loses something
        for number in range(3):
            watched.server.kill()
            await watched.server.start()
            subjects = [f"vm.placed.msk.vm{number}", f"vm.requested.msk.vm{number}"]
            await watched.publish(*subjects)
            expected += subjects
            await watched.until(expected)
            assert [type(news) for news in watched.told if not isinstance(news, Heard)] == [Lost, Back] * (number + 1)
    assert all(back.missing == () for back in watched.backs())


async def test_events_that_are_lost_with_the_servers_disk_are_said_to_be_missing(
    watched: Watched, tmp_path: Path
) -> None:
    await watched.publish("vm.placed.msk.vm1")
    async with watched.listening():
        watched.server.kill()
        shutil.rmtree(tmp_path / "jetstream")
        await watched.server.start()
        await watched.publish("vm.placed.msk.vm2")
        await watched.until(["vm.placed.msk.vm2"])
    assert "FACTS" in watched.backs()[0].missing


async def test_a_consumer_that_somebody_removes_is_made_again(watched: Watched) -> None:
    await watched.publish()
    async with watched.listening():
        await watched.publish("vm.placed.msk.vm1")
        await watched.until(["vm.placed.msk.vm1"])
        async with await nats.connect(watched.server.url) as client:
            for consumer in await client.jetstream().consumers_info("FACTS"):
                await client.jetstream().delete_consumer("FACTS", consumer.name)
        await watched.publish("vm.placed.msk.vm2")
        await watched.until(["vm.placed.msk.vm1", "vm.placed.msk.vm2"])


def test_what_comes_at_once_is_shown_by_its_time_but_not_moved_over_a_lost_connection() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def heard(second: int) -> Heard:
        return Heard(noon + timedelta(seconds=second), f"dead.s{second}", b"", {})

    shown = [text.plain for text in in_order([heard(2), heard(1), Lost("gone"), Back(1.5, ("FACTS",)), heard(0)])]
    assert [word for text in shown for word in text.split() if word[0] == "s" and word[1:].isdigit()] == [
        "s1",
        "s2",
        "s0",
    ]
    assert "connection lost: gone; trying again until Ctrl-C" in shown[2]
    assert "connected again after 1.50 s; some events of FACTS are missing" in shown[3]
