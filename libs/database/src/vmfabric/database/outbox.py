"""Messages that are committed with the change they follow from, and published afterwards.

Each schema has a table `outbox (id bigserial PRIMARY KEY, subject text, headers jsonb, body bytea)`.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import asyncpg
import structlog
from prometheus_client import Gauge

from vmfabric.contract.envelope import Outgoing
from vmfabric.contract.errors import TryAgain
from vmfabric.database.pool import TRANSIENT, Connection
from vmfabric.runtime.desired import KEY_SUBJECT

_BATCH = 500
_OFFERED = 10_000
_IDLE_SECONDS = 1.0
_QUIET_SECONDS = 0.05
_RETRY_SECONDS = 0.25

_RETRIED: tuple[type[BaseException], ...] = (TryAgain, *TRANSIENT)

log = structlog.get_logger()

_batch = Gauge("vmfabric_outbox_batch", "Messages taken from the outbox in the last batch")


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


class Stored(NamedTuple):
    """A message in the outbox."""

    id: int
    message: Outgoing


class Relay:
    """Publishes what is in the outbox, oldest first, and takes it out when the stream keeps it.

    Whoever commits may offer what it has put there, which saves reading it back. The table stays the truth: after a
    start, a failure, or a `wake`, everything is read from it.
    """

    def __init__(self, pool: asyncpg.Pool, sender: Sender) -> None:
        self._pool = pool
        self._sender = sender
        self._wake = asyncio.Event()
        self._read = True
        """Whether the table has to be read."""
        self._last_read: frozenset[int] = frozenset()
        """A row may be read before whoever committed it comes to offer it."""
        self._offered: deque[Stored] = deque()
        self._sent: list[int] = []

    def wake(self) -> None:
        """Something was committed."""
        self._read = True
        self._wake.set()

    def offer(self, stored: Sequence[Stored]) -> None:
        """These were committed."""
        self._offered.extend(each for each in stored if each.id not in self._last_read)
        if len(self._offered) > _OFFERED:
            self._read = True
        self._wake.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self._publish_all()
            except _RETRIED as error:
                log.warning("outbox.waits", error=str(error) or repr(error))
                await asyncio.sleep(_RETRY_SECONDS)
                self.wake()
            if not await _set_within(self._wake, _QUIET_SECONDS if self._sent else _IDLE_SECONDS):
                # Nothing was committed for a while: take out what was sent, and look whether something was missed.
                self._read = True

    async def publish_batch(self) -> bool:
        """Publish the oldest messages of the table; whether there may be more."""
        await self._take_out()
        self._offered.clear()
        rows = await self._pool.fetch("SELECT id, subject, headers, body FROM outbox ORDER BY id LIMIT $1", _BATCH)
        self._last_read = frozenset(row["id"] for row in rows)
        self._offered = deque(each for each in self._offered if each.id not in self._last_read)
        if rows:
            await self._publish(
                [Stored(row["id"], Outgoing(row["subject"], row["body"], row["headers"])) for row in rows]
            )
            await self._take_out()
        return len(rows) == _BATCH

    async def _publish_all(self) -> None:
        while self._read or self._offered:
            if self._read:
                self._read = False
                self._read = await self.publish_batch() or self._read
            else:
                await self._publish([self._offered.popleft() for _ in range(min(len(self._offered), _BATCH // 2))])
                if len(self._sent) >= _BATCH // 2:
                    # Never more than one batch stays behind: after a crash it is read, and published, as one again.
                    await self._take_out()

    async def _publish(self, stored: Sequence[Stored]) -> None:
        _batch.set(len(stored))
        await self._sender.send(last_of_each_key([each.message for each in stored]))
        self._sent += [each.id for each in stored]

    async def _take_out(self) -> None:
        if self._sent:
            await self._pool.execute("DELETE FROM outbox WHERE id = ANY($1::bigint[])", self._sent)
            self._sent = []


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


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
