"""The calls of nats-py that vmfabric makes, on the simulated server. `runtime.bus.Bus` runs on it unchanged."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import nats.errors
import nats.js.errors
from nats.js.api import ConsumerConfig, KeyValueConfig, StreamConfig

from simulation.bus_server import Kept, Server, ServerConsumer
from simulation.faults import Fault
from simulation.process import Process
from vmfabric.runtime.desired import KEY_SUBJECT

_HOP = 0.0005


@dataclass(frozen=True, slots=True)
class _Sequence:
    stream: int


@dataclass(frozen=True, slots=True)
class _Metadata:
    stream: str
    sequence: _Sequence
    timestamp: datetime
    num_delivered: int
    num_pending: int


class SimulatedMessage:
    """What a callback gets."""

    def __init__(
        self, client: "SimulatedClient", kept: Kept, attempt: int, pending: int, consumer: ServerConsumer | None
    ) -> None:
        self.subject = kept.subject
        self.data = kept.body
        self.headers = dict(kept.headers) or None
        self.metadata = _Metadata("stream", _Sequence(kept.sequence), kept.at, attempt, pending)
        self._client = client
        self._consumer = consumer

    async def ack(self) -> None:
        """It may be lost: the message then comes again."""
        if not self._client.server.faults.roll(Fault.ACK_LOST):
            await self._answer(lambda consumer: consumer.acknowledge(self.metadata.sequence.stream))

    async def nak(self, delay: float) -> None:
        """Again after so many seconds."""
        await self._answer(lambda consumer: consumer.refuse(self.metadata.sequence.stream, delay))

    async def _answer(self, call: Callable[[ServerConsumer], None]) -> None:
        await self._client.process.point()
        if self._consumer is not None and self._client.is_connected:
            self._client.up(call, self._consumer)


class SimulatedSubscription:
    """Its messages are handed to the callback one after the other."""

    def __init__(self, client: "SimulatedClient", pattern: str, queue: str, callback: Callable[[Any], Any]) -> None:
        self.pattern = pattern
        self.queue = queue
        self._client = client
        self._callback = callback
        self._waiting: asyncio.Queue[SimulatedMessage] = asyncio.Queue()
        self._task = asyncio.create_task(self._serve())

    def deliver(self, kept: Kept, attempt: int, pending: int, consumer: ServerConsumer | None) -> None:
        """A message has come."""
        client = self._client
        if client.is_connected and not client.process.is_dead:
            self._waiting.put_nowait(SimulatedMessage(client, kept, attempt, pending, consumer))

    async def unsubscribe(self) -> None:
        """No more of it."""
        self._task.cancel()
        self._client.server.unlisten(self)

    async def _serve(self) -> None:
        while True:
            await self._callback(await self._waiting.get())


class SimulatedClient:
    """One connection."""

    max_payload = 1 << 20
    connected_url = None

    def __init__(self, server: Server, process: Process) -> None:
        self.server = server
        self.process = process
        self.is_connected = False
        self.is_reconnecting = False
        self._reconnected: Callable[[], Awaitable[None]] | None = None
        self._free_at = 0.0
        self._inboxes = 0
        self._subscriptions: list[SimulatedSubscription] = []

    async def connect(self, _url: str, *, reconnected_cb: Callable[[], Awaitable[None]], **_options: Any) -> None:
        """There is always a server at the beginning."""
        await self.process.point()
        self._reconnected = reconnected_cb
        self.is_connected = True

    def cut(self, seconds: float) -> None:
        """What is under way is lost, and nothing comes or goes for so long."""
        if self.is_connected and self._reconnected is not None:
            self.is_connected = False
            self.is_reconnecting = True
            self.server.loop.outside(seconds, self._mend)

    def drop(self) -> None:
        """The process is dead."""
        self.is_connected = False
        for subscription in self._subscriptions:
            self.server.unlisten(subscription)

    def new_inbox(self) -> str:
        """A subject of one's own."""
        self._inboxes += 1
        return f"_INBOX.{self.process.name}.{self.process.life}.{self._inboxes}"

    async def subscribe(self, subject: str, queue: str = "", cb: Any = None) -> SimulatedSubscription:
        """Call back for every message."""
        subscription = SimulatedSubscription(self, subject, queue, cb)
        self._subscriptions.append(subscription)
        self.server.listen(subscription)
        return subscription

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """With `reply`, the stream that keeps the message says so there."""
        if reply:
            await self.process.point()
        if not self.is_connected:
            return
        if not reply:
            self.up(self.server.tell, subject, payload)
            return
        faults = self.server.faults
        message = (subject, payload, headers or {})
        if faults.roll(Fault.PUBLISH_LOST):
            return
        if faults.roll(Fault.PUBLISH_UNKNOWN):
            self.up(self.server.keep, *message)
        elif not subject.startswith(KEY_SUBJECT) and faults.roll(Fault.PUBLISH_LATE):
            # Desired state has one writer with one connection, on which a later value cannot overtake an earlier one.
            self.server.loop.outside(faults.between(5.0, 20.0), self.server.keep, *message)
        else:
            self.up(self._keep, message, reply)

    async def flush(self, timeout: float = 0) -> None:  # noqa: ASYNC109
        """Nothing is buffered."""

    async def close(self) -> None:
        """Leave."""
        self.drop()

    def jetstream(self, **_options: Any) -> "SimulatedJetStream":
        """The calls to streams."""
        return SimulatedJetStream(self)

    def up(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Towards the server, in order."""
        loop = self.server.loop
        self._free_at = max(self._free_at + 1e-6, loop.now + _HOP)
        loop.outside(self._free_at - loop.now, call, *arguments)

    def _keep(self, message: tuple[str, bytes, Mapping[str, str]], reply: str) -> None:
        kept = self.server.keep(*message)
        body = (
            b'{"error": {"code": 503, "description": "no stream keeps it", "err_code": 0}}' if kept is None else b"{}"
        )
        self.server.tell(reply, body)
        if not self.process.is_dead and self.server.faults.roll(Fault.CRASH_AFTER_WORDS):
            self.process.kill("after its words")

    def _mend(self) -> None:
        if not self.process.is_dead and self._reconnected is not None:
            self.is_connected = True
            self.is_reconnecting = False
            self.process.spawn(self._reconnected())


class SimulatedJetStream:
    """Streams and consumers."""

    def __init__(self, client: SimulatedClient) -> None:
        self._client = client
        self._server = client.server

    async def add_stream(self, config: StreamConfig) -> None:
        """Make it, unless it is there."""
        await self._ask()
        self._server.add_stream(config.name or "", list(config.subjects or ()))

    async def update_stream(self, config: StreamConfig) -> None:
        """It is as it was."""

    async def create_key_value(self, config: KeyValueConfig) -> None:
        """Make the bucket, unless it is there."""
        await self._ask()
        self._server.add_stream(f"KV_{config.bucket}", [f"{KEY_SUBJECT}>"], latest_only=True)

    async def add_consumer(self, stream: str, config: ConsumerConfig) -> "ConsumerState":
        """Start reading."""
        await self._ask()
        found = self._server.streams.get(stream)
        if found is None:
            raise nats.js.errors.NotFoundError
        name = config.durable_name or self._client.new_inbox()
        consumer = ServerConsumer(self._server, found, name, config)
        found.consumers[name] = consumer
        return ConsumerState(name, consumer.backlog, None, config)

    async def consumer_info(self, stream: str, name: str) -> "ConsumerState":
        """NotFoundError when there is none."""
        await self._ask()
        found = self._server.streams.get(stream)
        if found is None or name not in found.consumers:
            raise nats.js.errors.NotFoundError
        return ConsumerState(name, 0, None, found.consumers[name].config)

    async def _ask(self) -> None:
        await self._client.process.point()
        self._check()

    def _check(self) -> None:
        if not self._client.is_connected:
            raise nats.errors.ConnectionClosedError


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """What the server says of a consumer."""

    name: str
    num_pending: int
    delivered: None
    config: ConsumerConfig
