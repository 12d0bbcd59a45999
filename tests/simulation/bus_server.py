"""A NATS server in memory: streams that keep messages, consumers that deliver them at least once, plain subjects.

It promises what JetStream promises and no more. https://docs.nats.io/nats-concepts/jetstream
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Protocol

from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from simulation.faults import Fault, Faults
from simulation.story import Story
from simulation.virtual_time import VirtualLoop

_HOP = 0.0005
_DUPLICATE_WINDOW = 120.0
_GIVE_UP_REPEATING = 25.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A message in a stream."""

    sequence: int
    subject: str
    body: bytes
    headers: Mapping[str, str]
    at: datetime


class Listener(Protocol):
    """A subscription, as the server sees it."""

    pattern: str
    queue: str

    def deliver(self, kept: Kept, attempt: int, pending: int, consumer: "ServerConsumer | None") -> None:
        """A message has come."""
        ...


@lru_cache(maxsize=10_000)
def matches(pattern: str, subject: str) -> bool:
    """NATS wildcards: `*` for one token, `>` for the rest."""
    wanted, found = pattern.split("."), subject.split(".")
    for index, token in enumerate(wanted):
        if token == ">":
            return len(found) > index
        if index >= len(found) or token not in {"*", found[index]}:
            return False
    return len(wanted) == len(found)


@dataclass
class ServerStream:
    """Messages in order. With `latest_only`, the last of each subject: a key-value bucket."""

    name: str
    subjects: Sequence[str]
    latest_only: bool = False
    kept: OrderedDict[int, Kept] = field(default_factory=OrderedDict)
    consumers: dict[str, "ServerConsumer"] = field(default_factory=dict)
    last_sequence: int = 0
    seen: dict[str, tuple[float, int]] = field(default_factory=dict)

    def drop(self, name: str) -> None:
        """Forget a consumer."""
        if name in self.consumers:
            self.consumers.pop(name).is_gone = True

    def last_of_each(self) -> dict[str, Kept]:
        """The last message of each subject, in the stream's order."""
        last: dict[str, Kept] = {}
        for kept in self.kept.values():
            last.pop(kept.subject, None)
            last[kept.subject] = kept
        return last


class Server:
    """The one server of a world."""

    def __init__(self, loop: VirtualLoop, faults: Faults, story: Story) -> None:
        self.loop = loop
        self.faults = faults
        self.story = story
        self.streams: dict[str, ServerStream] = {}
        self._listeners: list[Listener] = []
        self._listening: dict[str, list[Listener]] = {}
        """By subject, since somebody began or ceased to listen."""
        self.writes = 0
        """Messages that streams have kept since the beginning."""
        self.on_kept: Callable[[str, Kept], None] = lambda _stream, _kept: None

    def add_stream(self, name: str, subjects: Sequence[str], *, latest_only: bool = False) -> None:
        """Make it, unless it is there."""
        if name not in self.streams:
            self.streams[name] = ServerStream(name, subjects, latest_only)

    def empty(self) -> None:
        """Lose everything."""
        for stream in self.streams.values():
            for consumer in stream.consumers.values():
                consumer.is_gone = True
        self.streams.clear()

    def stream_of(self, subject: str) -> ServerStream | None:
        """The stream that keeps this subject."""
        for stream in self.streams.values():
            if any(matches(pattern, subject) for pattern in stream.subjects):
                return stream
        return None

    def keep(self, subject: str, body: bytes, headers: Mapping[str, str]) -> tuple[ServerStream, int] | None:
        """Put a message into its stream and start delivering it; None when no stream wants it."""
        stream = self.stream_of(subject)
        if stream is None:
            return None
        identity = headers.get("Nats-Msg-Id")
        if identity is not None:
            known = stream.seen.get(identity)
            if known is not None and self.loop.now - known[0] < _DUPLICATE_WINDOW:
                return stream, known[1]
            stream.seen[identity] = (self.loop.now, stream.last_sequence + 1)
        if stream.latest_only:
            for sequence in [kept.sequence for kept in stream.kept.values() if kept.subject == subject]:
                del stream.kept[sequence]
        stream.last_sequence += 1
        kept = Kept(stream.last_sequence, subject, body, headers, self.loop.wall())
        stream.kept[kept.sequence] = kept
        self.writes += 1
        self.on_kept(stream.name, kept)
        for consumer in stream.consumers.values():
            consumer.offer(kept)
        return stream, kept.sequence

    def tell(self, subject: str, body: bytes) -> None:
        """Pass a message on to whoever listens right now."""
        kept = Kept(0, subject, body, {}, self.loop.wall())
        for listener in self.listening(subject):
            self.loop.outside(_HOP, listener.deliver, kept, 1, 0, None)

    def listening(self, subject: str) -> list[Listener]:
        """All listeners, of each queue the first."""
        if subject not in self._listening:
            found: dict[object, Listener] = {}
            for listener in self._listeners:
                if matches(listener.pattern, subject):
                    found.setdefault(listener.queue or listener, listener)
            self._listening[subject] = list(found.values())
        return self._listening[subject]

    def unlisten(self, listener: Listener) -> None:
        """No more. Consumers that are dropped when nobody listens are so a little later."""
        if listener not in self._listeners:
            return
        self._listeners.remove(listener)
        self._listening.clear()
        for stream in self.streams.values():
            for name, consumer in stream.consumers.items():
                if consumer.deliver_subject == listener.pattern and consumer.config.inactive_threshold:
                    self.loop.outside(consumer.config.inactive_threshold, stream.drop, name)

    def listen(self, listener: Listener) -> None:
        """From now on."""
        self._listeners.append(listener)
        self._listening.clear()
        for stream in list(self.streams.values()):
            for consumer in list(stream.consumers.values()):
                if consumer.deliver_subject == listener.pattern:
                    consumer.flush()


class ServerConsumer:
    """Where one reader is in a stream."""

    def __init__(self, server: Server, stream: ServerStream, name: str, config: ConsumerConfig) -> None:
        self.name = name
        self.config = config
        self.deliver_subject = config.deliver_subject or ""
        self.is_gone = False
        self._server = server
        self._stream = stream
        self._filters = tuple(config.filter_subjects or (">",))
        self._acknowledged = config.ack_policy is AckPolicy.EXPLICIT
        self._ack_wait = config.ack_wait or 30.0
        self._attempts: dict[int, int] = {}
        self._held: list[Kept] = []
        self._free_at = 0.0
        last_only = config.deliver_policy is DeliverPolicy.LAST_PER_SUBJECT
        backlog = (stream.last_of_each() if last_only else stream.kept).values()
        wanted = [kept for kept in backlog if self._wants(kept.subject)]
        self.backlog = len(wanted)
        for index, kept in enumerate(wanted, 1):
            self._first(kept, pending=len(wanted) - index)
        if config.idle_heartbeat:
            server.loop.outside(config.idle_heartbeat, self._beat, config.idle_heartbeat)

    def offer(self, kept: Kept) -> None:
        """A new message is in the stream."""
        if self._wants(kept.subject):
            self._first(kept, pending=0)

    def flush(self) -> None:
        """Somebody listens again."""
        held, self._held = self._held, []
        for kept in held:
            self._attempt(kept)

    def acknowledge(self, sequence: int) -> None:
        """It has had its effect."""
        if self._attempts.pop(sequence, None) is None:
            return
        faults = self._server.faults
        if faults.roll(Fault.DELIVERY_AGAIN):
            kept = self._stream.kept.get(sequence)
            if kept is not None:
                self._server.loop.outside(faults.between(1, _GIVE_UP_REPEATING), self._deliver, kept, 2, 0)

    def refuse(self, sequence: int, delay: float) -> None:
        """It shall come again after so many seconds."""
        attempt = self._attempts.get(sequence)
        if attempt is not None:
            self._server.loop.outside(delay, self._repeat, sequence, attempt)

    def unacknowledged(self) -> frozenset[int]:
        """The messages that have not had their effect, as far as the server knows."""
        return frozenset(self._attempts)

    def _beat(self, seconds: float) -> None:
        if not self.is_gone:
            self._deliver(Kept(0, "", b"", {"Status": "100"}, self._server.loop.wall()), 1, 0)
            self._server.loop.outside(seconds, self._beat, seconds)

    def _wants(self, subject: str) -> bool:
        return any(matches(pattern, subject) for pattern in self._filters)

    def _first(self, kept: Kept, pending: int) -> None:
        if self._acknowledged:
            self._attempts[kept.sequence] = 0
            self._attempt(kept)
            return
        # One connection: what is sent first arrives first.
        lag = _HOP
        if self._server.faults.roll(Fault.SLOW):
            lag = self._server.faults.between(0.01, 3.0)
        loop = self._server.loop
        self._free_at = max(self._free_at + 1e-6, loop.now + lag)
        loop.outside(self._free_at - loop.now, self._deliver, kept, 1, pending)

    def _attempt(self, kept: Kept) -> None:
        if self.is_gone or kept.sequence not in self._attempts:
            return
        if not self._server.listening(self.deliver_subject):
            self._held.append(kept)
            return
        self._attempts[kept.sequence] += 1
        attempt = self._attempts[kept.sequence]
        self._server.loop.outside(self._ack_wait, self._repeat, kept.sequence, attempt)
        faults = self._server.faults
        if faults.roll(Fault.DELIVERY_LOST):
            return
        lag = _HOP
        if faults.roll(Fault.DELIVERY_LATE):
            lag = faults.between(0.01, 4.0)
        self._server.loop.outside(lag, self._deliver, kept, attempt, 0)
        if faults.roll(Fault.DELIVERY_TWICE):
            self._server.loop.outside(lag + faults.between(0, 0.5), self._deliver, kept, attempt, 0)

    def _repeat(self, sequence: int, attempt: int) -> None:
        kept = self._stream.kept.get(sequence)
        if kept is not None and self._attempts.get(sequence) == attempt:
            self._attempt(kept)

    def _deliver(self, kept: Kept, attempt: int, pending: int) -> None:
        if self.is_gone:
            return
        for listener in self._server.listening(self.deliver_subject)[:1]:
            listener.deliver(kept, attempt, pending, self if self._acknowledged else None)
