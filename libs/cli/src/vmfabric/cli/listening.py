"""Everything that the streams keep, from now on and for ever: after a lost connection it goes on where it was."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamInfo

from vmfabric.contract.node import NodeHeartbeat
from vmfabric.contract.streams import STREAMS

_AGAIN_SECONDS = 0.5
_LOOK_SECONDS = 2.0
_REQUEST_SECONDS = 2.0
_PING_SECONDS = 5
_CONNECT_SECONDS = 2
_HEARTBEATS = f"{NodeHeartbeat.subject_template.stem}.>"


@dataclass(frozen=True, slots=True)
class Heard:
    """A message."""

    at: datetime
    """When its stream got it."""
    subject: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection is lost; another one is tried until it stands."""

    reason: str


@dataclass(frozen=True, slots=True)
class Back:
    """The connection stands again, and what came meanwhile follows."""

    seconds: float
    """How long it was away."""
    missing: tuple[str, ...]
    """Streams that do not have all of that any more."""


News = Heard | Lost | Back
End = asyncio.Future[str]
"""Why a connection is of no use any more."""


class _Gone(Exception):
    """The connection, or what listens on it, is not there any more."""


class Listener:
    """Tells all that it hears."""

    def __init__(self, url: str, tell: Callable[[News], None], *, heartbeats: bool = False) -> None:
        self._url = url
        self._tell = tell
        self._heartbeats = heartbeats
        self._made: dict[str, datetime | None] = {}
        """When each stream was made; None while there is none. Another one counts its messages anew."""
        self._next: dict[str, int] = {}
        """The number in its stream of the message that comes next."""
        self._lost: float | None = None
        """When the connection was lost (time.monotonic())."""

    async def begin(self, client: Client) -> None:
        """Nothing that is published from now on escapes. Errors of nats-py when the server does not answer."""
        for stream in STREAMS:
            info = await _info(client.jetstream(timeout=_REQUEST_SECONDS), stream.name)
            self._made[stream.name] = info.created if info else None
            self._next[stream.name] = info.state.last_seq + 1 if info else 1

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                await self._listen()
            except (nats.errors.Error, OSError, _Gone) as error:
                if self._lost is None:
                    self._lost = time.monotonic()
                    self._tell(Lost(str(error) or type(error).__name__))
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _connect(self, end: End) -> Client:
        async def closed() -> None:
            _set(end, "the server is away")

        # A new client each time: nats-py's own way back leaves consumers that may stay silent for many seconds.
        return await nats.connect(
            self._url,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=_CONNECT_SECONDS,
            ping_interval=_PING_SECONDS,
            max_outstanding_pings=2,
            error_cb=_told_otherwise,
            closed_cb=closed,
        )

    async def _listen(self) -> None:
        end = _end()
        async with await self._connect(end) as client:
            jetstream = client.jetstream(timeout=_REQUEST_SECONDS)
            missing = await self._find_place(jetstream)
            if self._lost is not None:
                self._tell(Back(time.monotonic() - self._lost, tuple(missing)))
                self._lost = None
            if self._heartbeats:
                await client.subscribe(_HEARTBEATS, cb=self._passing)
            followed: dict[str, JetStreamContext.PushSubscription] = {}
            while not end.done():
                await self._follow(jetstream, followed, end)
                await asyncio.wait({end}, timeout=_LOOK_SECONDS)
        raise _Gone(end.result())

    async def _find_place(self, jetstream: JetStreamContext) -> list[str]:
        """Where to go on in each stream. Gives those streams that do not have all of what was not heard any more."""
        missing: list[str] = []
        for stream in STREAMS:
            info = await _info(jetstream, stream.name)
            before, made = self._made[stream.name], info.created if info else None
            is_another = made != before
            if before and (is_another or (info and info.state.first_seq > self._next[stream.name])):
                missing.append(stream.name)
            if is_another:
                self._made[stream.name], self._next[stream.name] = made, 1
        return missing

    async def _follow(
        self, jetstream: JetStreamContext, followed: dict[str, JetStreamContext.PushSubscription], end: End
    ) -> None:
        """Have a consumer on each stream that there is. An error of nats-py when one has vanished."""
        for stream in STREAMS:
            if stream.name in followed:
                await followed[stream.name].consumer_info()
                continue
            info = await _info(jetstream, stream.name)
            if info is None:  # it is looked for again
                continue
            self._made[stream.name] = info.created
            config = ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=self._next[stream.name],
                ack_policy=AckPolicy.NONE,
                mem_storage=True,
            )
            followed[stream.name] = await jetstream.subscribe(
                ">", stream=stream.name, config=config, cb=self._receiver(stream.name, end)
            )

    def _receiver(self, stream: str, end: End) -> Callable[[Msg], Awaitable[None]]:
        expected = 1

        async def received(message: Msg) -> None:
            nonlocal expected
            metadata = message.metadata
            if metadata.sequence.consumer != expected:
                _set(end, "messages came faster than they were shown")
            if end.done():
                return
            expected += 1
            self._next[stream] = metadata.sequence.stream + 1
            self._tell(Heard(metadata.timestamp, message.subject, message.data, message.headers or {}))

        return received

    async def _passing(self, message: Msg) -> None:
        self._tell(Heard(datetime.now(UTC), message.subject, message.data, message.headers or {}))


async def _info(jetstream: JetStreamContext, stream: str) -> StreamInfo | None:
    try:
        return await jetstream.stream_info(stream)
    except nats.js.errors.NotFoundError:  # services make it when they start
        return None


def _end() -> End:
    return asyncio.get_running_loop().create_future()


def _set(end: End, reason: str) -> None:
    if not end.done():
        end.set_result(reason)


async def _told_otherwise(_error: Exception) -> None:
    """The listener gets an exception, or the connection is closed; nats-py would print a traceback for each."""
