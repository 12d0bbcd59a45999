"""The outbox and the writer lock against a real Postgres."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import asyncpg
import pytest

from vmfabric.contract.envelope import Outgoing
from vmfabric.contract.errors import Code, TryAgain
from vmfabric.database.lock import WriterLockLostError, writer_lock
from vmfabric.database.migrations import migrate
from vmfabric.database.outbox import Relay, Stored, add
from vmfabric.database.pool import connect

OUTBOX = """
CREATE TABLE outbox (id bigserial PRIMARY KEY, subject text NOT NULL, headers jsonb NOT NULL, body bytea NOT NULL)
"""


class Stream:
    def __init__(self) -> None:
        self.kept: list[Outgoing] = []
        self.away = 0

    async def send(self, messages: Sequence[Outgoing]) -> None:
        if self.away:
            self.away -= 1
            raise TryAgain(Code.INTERNAL, "the bus is away")
        self.kept += messages


@pytest.fixture
async def pool(database_url: str, tmp_path: Path) -> AsyncIterator[asyncpg.Pool]:
    (tmp_path / "0001.sql").write_text(OUTBOX)
    await asyncio.gather(*(migrate(database_url, schema="a_schema", directory=tmp_path) for _ in range(3)))
    pool = await connect(database_url, schema="a_schema")
    yield pool
    await pool.close()


def a_message(number: int, subject: str = "ip.released.msk.vm1.n1") -> Outgoing:
    return Outgoing(subject, str(number).encode(), {"ce-id": str(number)})


async def test_messages_are_published_in_order_and_taken_out(pool: asyncpg.Pool) -> None:
    stream = Stream()
    sent = [a_message(number) for number in range(1200)]
    async with pool.acquire() as connection, connection.transaction():
        await add(connection, sent)
    relay = Relay(pool, stream)
    while await relay.publish_batch():
        pass
    assert stream.kept == sent
    assert await pool.fetchval("SELECT count(*) FROM outbox") == 0


async def test_nothing_of_a_transaction_that_is_rolled_back_is_published(pool: asyncpg.Pool) -> None:
    stream = Stream()
    with pytest.raises(ZeroDivisionError):
        async with pool.acquire() as connection, connection.transaction():
            await add(connection, [a_message(1)])
            raise ZeroDivisionError
    await Relay(pool, stream).publish_batch()
    assert not stream.kept


async def test_messages_wait_while_the_bus_is_away(pool: asyncpg.Pool) -> None:
    stream = Stream()
    stream.away = 3
    async with pool.acquire() as connection:
        await add(connection, [a_message(1)])
    task = asyncio.create_task(Relay(pool, stream).run())
    async with asyncio.timeout(10):
        while await pool.fetchval("SELECT count(*) FROM outbox"):
            await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait({task})
    assert stream.away == 0
    assert stream.kept == [a_message(1)]


async def test_only_the_last_value_of_a_key_is_published(pool: asyncpg.Pool) -> None:
    stream = Stream()
    key = "$KV.desired.vm.msk.n1.vm1"
    async with pool.acquire() as connection:
        await add(connection, [a_message(1, key), a_message(2), a_message(3, key), a_message(4)])
    await Relay(pool, stream).publish_batch()
    assert [message.body for message in stream.kept] == [b"2", b"3", b"4"]


async def test_a_second_writer_waits_until_the_first_ends(database_url: str) -> None:
    order: list[str] = []

    async def second() -> None:
        async with writer_lock(database_url, "a"):
            order.append("second")

    async with writer_lock(database_url, "a"):
        waiting = asyncio.create_task(second())
        probe = await asyncpg.connect(database_url)
        async with asyncio.timeout(5):
            while (
                await probe.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vmfabric-lock-a'"
                    " AND query LIKE '%pg_try_advisory_lock%' AND state = 'idle'"
                )
                != 2
            ):
                await asyncio.sleep(0.02)
        await probe.close()
        order.append("first")
    await asyncio.wait_for(waiting, 5)
    assert order == ["first", "second"]


async def test_the_work_ends_when_the_lock_is_lost(database_url: str) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(15), writer_lock(database_url, "a"):
            killer = await asyncpg.connect(database_url)
            await killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'vmfabric-lock-a'"
            )
            await killer.close()
            await asyncio.Event().wait()
    assert caught.group_contains(WriterLockLostError)


async def commit(pool: asyncpg.Pool, messages: Sequence[Outgoing]) -> list[Stored]:
    rows = await pool.fetch(
        "INSERT INTO outbox (subject, headers, body) SELECT * FROM unnest($1::text[], $2::jsonb[], $3::bytea[])"
        " RETURNING id",
        [message.subject for message in messages],
        [message.headers for message in messages],
        [message.body for message in messages],
    )
    return [Stored(row["id"], message) for row, message in zip(rows, messages, strict=True)]


async def test_what_is_offered_is_published_once_and_in_order_between_what_is_read(pool: asyncpg.Pool) -> None:
    stream = Stream()
    relay = Relay(pool, stream)
    running = asyncio.create_task(relay.run())
    sent = [a_message(number) for number in range(900)]
    for start in range(0, 900, 30):
        stored = await commit(pool, sent[start : start + 30])
        if start % 90:
            relay.offer(stored)
        else:
            relay.wake()
    async with asyncio.timeout(10):
        while await pool.fetchval("SELECT count(*) FROM outbox"):
            await asyncio.sleep(0.01)
    running.cancel()
    assert stream.kept == sent


async def test_what_is_offered_while_the_bus_is_away_is_published_when_it_is_back(pool: asyncpg.Pool) -> None:
    stream = Stream()
    relay = Relay(pool, stream)
    running = asyncio.create_task(relay.run())
    stream.away = 2
    sent = [a_message(number) for number in range(3)]
    for message in sent:
        relay.offer(await commit(pool, [message]))
    async with asyncio.timeout(10):
        while await pool.fetchval("SELECT count(*) FROM outbox"):
            await asyncio.sleep(0.01)
    running.cancel()
    assert stream.kept == sent
