"""The connection to NATS: reconnects for ever, publishes with an acknowledgement, says when it is back."""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import nats
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, StreamConfig

from vmfabric.contract.desired import BUCKET
from vmfabric.contract.envelope import Outgoing, Trace, outgoing
from vmfabric.contract.errors import Code, TryAgain
from vmfabric.contract.model import Event
from vmfabric.contract.streams import STREAMS
from vmfabric.runtime.acknowledged import Acknowledged
from vmfabric.runtime.clock import Clock, SystemClock

_PUBLISH_SECONDS = 5.0
_RECONNECT_SECONDS = 0.25
_PING_SECONDS = 5

log = structlog.get_logger()


class Bus:
    """One connection. It may be opened while the server is away: publishing then says TryAgain."""

    def __init__(
        self, url: str, *, name: str, replicas: int = 1, clock: Clock | None = None, client: Client | None = None
    ) -> None:
        """`url` may be several with commas between; `replicas`: how many servers keep each stream."""
        self._urls = url.split(",")
        self._name = name
        self._replicas = replicas
        self._clock = clock or SystemClock()
        self.client = client or Client()
        self._acknowledged = Acknowledged(self.client, seconds=_PUBLISH_SECONDS)
        self._connecting: asyncio.Task[None] | None = None
        self._on_reconnect: list[Callable[[], None]] = []

    async def __aenter__(self) -> Self:
        self._connecting = asyncio.create_task(self._connect())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        if self.client.is_connected:
            await self.client.flush(timeout=2)
        if self.client.is_connected or self.client.is_reconnecting:
            await self.client.close()

    async def connected(self) -> None:
        """Wait until the first connection stands and the streams exist."""
        if self._connecting is not None:
            await asyncio.shield(self._connecting)

    @property
    def is_connected(self) -> bool:
        """Whether a server is there right now, streams and all."""
        return self.client.is_connected and self._connecting is not None and self._connecting.done()

    @property
    def jetstream(self) -> JetStreamContext:
        """The JetStream calls of the client."""
        return self.client.jetstream(timeout=_PUBLISH_SECONDS, publish_async_max_pending=4096)

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call this after every reconnect: what was read before may have changed meanwhile."""
        self._on_reconnect.append(callback)

    async def publish(self, event: Event, trace: Trace) -> None:
        """Returns when the stream keeps the event. TryAgain when it does not within the deadline."""
        await self.send([outgoing(event, source=self._name, trace=trace, at=self._clock.now())])

    async def publish_passing(self, event: Event) -> None:
        """An event that nobody keeps; dropped when there is no server."""
        if self.client.is_connected:
            await self.client.publish(event.subject(), event.model_dump_json(exclude_none=True).encode())

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Publish in this order; returns when all are kept. TryAgain when one is not: send all of them again."""
        if not self.is_connected:
            raise TryAgain(Code.INTERNAL, "there is no connection to NATS; the message is kept and sent later")
        try:
            await self._acknowledged.publish(messages)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            reason = f"{type(error).__name__} {error}".strip()
            raise TryAgain(
                Code.INTERNAL, f"{len(messages)} messages are not acknowledged by JetStream ({reason}); sent later"
            ) from error

    async def ensure_streams(self) -> None:
        """Make the streams and the bucket of desired state as they should be; what is there is kept."""
        jetstream = self.jetstream
        for stream in STREAMS:
            config = StreamConfig(
                name=stream.name,
                subjects=list(stream.subjects),
                max_age=stream.max_age_seconds,
                max_bytes=stream.max_bytes,
                num_replicas=self._replicas,
            )
            try:
                await jetstream.add_stream(config)
            except nats.js.errors.BadRequestError:
                await jetstream.update_stream(config)
        await jetstream.create_key_value(KeyValueConfig(bucket=BUCKET, history=1, replicas=self._replicas))

    async def _connect(self) -> None:
        await self.client.connect(
            self._urls,
            name=self._name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RECONNECT_SECONDS,  # type: ignore[arg-type]  # it only sleeps for it
            connect_timeout=2,
            ping_interval=_PING_SECONDS,
            max_outstanding_pings=2,
            error_cb=self._error,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
        )
        while True:
            try:
                await self.ensure_streams()
            except (nats.errors.Error, TimeoutError, OSError) as error:
                log.warning("bus.streams_not_ready", error=repr(error))
                await asyncio.sleep(_RECONNECT_SECONDS)
            else:
                break
        log.info("bus.connected", url=self.client.connected_url.netloc if self.client.connected_url else None)
        self._back()

    async def _error(self, error: Exception) -> None:
        # The client calls this on every failed attempt to connect, several times a second while the server is away.
        level = log.debug if isinstance(error, OSError) else log.warning
        level("bus.error", error=repr(error))

    async def _disconnected(self) -> None:
        if not self.client.is_closed:
            log.warning("bus.disconnected")

    async def _reconnected(self) -> None:
        log.info("bus.reconnected")
        if self.is_connected:
            self._back()

    def _back(self) -> None:
        for callback in self._on_reconnect:
            callback()


async def open_client(url: str, *, lasting: bool = False) -> Client:
    """A bare connection for tools. NoServersError when there is no server: two attempts, two seconds each at most.

    A lasting one comes back by itself, however long the server is away.
    """
    client = await nats.connect(
        url,
        connect_timeout=2,
        allow_reconnect=False,
        max_reconnect_attempts=1,
        reconnect_time_wait=0,
        error_cb=_told_by_exception,
    )
    if lasting:
        # Not before: the first connection would be tried for ever too.
        client.options |= {"allow_reconnect": True, "max_reconnect_attempts": -1, "reconnect_time_wait": 0.1}
    return client


async def _told_by_exception(_error: Exception) -> None:
    """The caller gets the exception; without this the client prints a traceback for each attempt too."""
