"""Messages that are committed with the change they follow from, and published afterwards.

Each schema has a table `outbox (id bigserial PRIMARY KEY, subject text, headers jsonb, body bytea)`.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import asyncpg
import structlog
from prometheus_client import Gauge

from vmfabric.contract.envelope import Outgoing
from vmfabric.contract.errors import TryAgain
from vmfabric.database.pool import TRANSIENT, Connection
from vmfabric.runtime.desired import KEY_SUBJECT

_BATCH = 500
_IDLE_SECONDS = 1.0
_RETRY_SECONDS = 0.25

_RETRIED: tuple[type[BaseException], ...] = (TryAgain, *TRANSIENT)

log = structlog.get_logger()

_oldest = Gauge("vmfabric_outbox_batch", "Messages taken from the outbox in the last batch")


class Sender(Protocol):
    """Where the relay publishes."""

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Publish in this order; TryAgain when one is not kept."""
        ...


async def add(connection: Connection, messages: Sequence[Outgoing]) -> None:
    """Put messages into the transaction that is open on this connection."""
    if not messages:
        return
    await connection.execute(
        "INSERT INTO outbox (subject, headers, body) SELECT * FROM unnest($1::text[], $2::jsonb[], $3::bytea[])",
        [message.subject for message in messages],
        [message.headers for message in messages],
        [message.body for message in messages],
    )


class Relay:
    """Publishes what is in the outbox, oldest first, and takes it out when the stream keeps it."""

    def __init__(self, pool: asyncpg.Pool, sender: Sender) -> None:
        self._pool = pool
        self._sender = sender
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something was committed."""
        self._wake.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            self._wake.clear()
            try:
                while await self.publish_batch():
                    pass
            except _RETRIED as error:
                log.warning("outbox.waits", error=str(error) or repr(error))
                await asyncio.sleep(_RETRY_SECONDS)
                self._wake.set()
            await _set_within(self._wake, _IDLE_SECONDS)

    async def publish_batch(self) -> bool:
        """Publish the oldest messages; whether there may be more."""
        rows = await self._pool.fetch("SELECT id, subject, headers, body FROM outbox ORDER BY id LIMIT $1", _BATCH)
        if not rows:
            return False
        _oldest.set(len(rows))
        messages = [Outgoing(row["subject"], row["body"], row["headers"]) for row in rows]
        await self._sender.send(last_of_each_key(messages))
        await self._pool.execute("DELETE FROM outbox WHERE id = ANY($1::bigint[])", [row["id"] for row in rows])
        return len(rows) == _BATCH


def last_of_each_key(messages: Sequence[Outgoing]) -> list[Outgoing]:
    """All events, but of each key of desired state only its last value.

    A batch that fails half way is published again as a whole; with one value per key an older one cannot end on top.
    """
    last = {message.subject: index for index, message in enumerate(messages)}
    return [
        message
        for index, message in enumerate(messages)
        if not message.subject.startswith(KEY_SUBJECT) or last[message.subject] == index
    ]


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
