"""The one runner of event handlers: durable, acknowledged after the effect, retried with backoff, bounded."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC
from typing import Any

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from prometheus_client import Counter, Histogram

from vmfabric.contract.envelope import Outgoing, Trace
from vmfabric.contract.errors import Refused, TryAgain
from vmfabric.contract.model import Event, RequestEvent
from vmfabric.contract.streams import DEAD_PREFIX, Stream
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.inbound import Invalid, UnreadableError, names_of, parse
from vmfabric.runtime.lanes import Lanes
from vmfabric.runtime.logging import handled
from vmfabric.runtime.message import AnyRoute, Message

_HANDLER_SECONDS = 20.0
_ACK_WAIT_SECONDS = 10.0
"""So long whoever asked waits when the process that has an event in hand is killed."""
_CHECK_SECONDS = 5.0
_DRAIN_SECONDS = 5.0
_MAX_ATTEMPTS = 30
_HEADER_ROOM = 8 * 1024

TRANSIENT: tuple[type[BaseException], ...] = (TryAgain, OSError, TimeoutError, nats.errors.Error)
"""The world outside is not ready; such an event is tried for ever."""

log = structlog.get_logger()

_handled = Counter("vmfabric_events", "Events by type and how they ended", ["event", "result"])
_seconds = Histogram("vmfabric_event_seconds", "Time in the handler", ["event"])


class Consumer:
    """Gives each event of a stream that a route names to its handler."""

    def __init__(
        self,
        bus: Bus,
        *,
        stream: Stream,
        durable: str,
        routes: Sequence[AnyRoute],
        on_invalid: Callable[[Invalid], Awaitable[None]] | None = None,
        transient: tuple[type[BaseException], ...] = (),
        max_pending: int = 512,
    ) -> None:
        self._bus = bus
        self._stream = stream
        self._durable = durable
        self._routes = {route.event.subject_template.stem: route for route in routes}
        self._on_invalid = on_invalid
        self._transient = (*TRANSIENT, *transient)
        self._max_pending = max_pending
        self._seconds = {name: _seconds.labels(name) for name in self._routes}
        self._done = {name: _handled.labels(name, "done") for name in self._routes}
        self._lanes = Lanes()
        self._check = asyncio.Event()

    async def run(self) -> None:
        """Consume until cancelled; then finish the work in hand."""
        await self._bus.connected()
        subscription = await self._bus.client.subscribe(self._deliver_subject, queue=self._durable, cb=self._received)
        self._bus.on_reconnect(self._check.set)
        try:
            while True:
                self._check.clear()
                await self._ensure()
                await _set_within(self._check, _CHECK_SECONDS)
        finally:
            await subscription.unsubscribe()
            await self._lanes.drain(_DRAIN_SECONDS)

    @property
    def _deliver_subject(self) -> str:
        return f"deliver.{self._stream.name}.{self._durable}"

    async def _ensure(self) -> None:
        # The server may have lost its data: the stream and this consumer are made again, and read from the start.
        jetstream = self._bus.jetstream
        try:
            wanted = self._config()
            try:
                found = await jetstream.consumer_info(self._stream.name, self._durable)
            except nats.js.errors.NotFoundError:
                await self._bus.ensure_streams()
                await jetstream.add_consumer(self._stream.name, config=wanted)
                log.info("consumer.created", stream=self._stream.name, durable=self._durable)
            else:
                if _filters(found.config) != _filters(wanted):
                    # Made by another version; it keeps its place in the stream.
                    await jetstream.add_consumer(self._stream.name, config=wanted)
                    log.info("consumer.changed", stream=self._stream.name, durable=self._durable)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            log.warning("consumer.not_ready", stream=self._stream.name, durable=self._durable, error=repr(error))

    def _config(self) -> ConsumerConfig:
        return ConsumerConfig(
            durable_name=self._durable,
            deliver_subject=self._deliver_subject,
            deliver_group=self._durable,
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=_ACK_WAIT_SECONDS,
            max_ack_pending=self._max_pending,
            filter_subjects=[subject for route in self._routes.values() for subject in _subjects(route)],
        )

    async def _received(self, message: Msg) -> None:
        route = self._route(message.subject)
        if route is None:
            # A consumer made by an older version may still ask for more than this one serves.
            await message.ack()
            return
        try:
            event = parse(route.event, message.subject, message.data)
        except UnreadableError as error:
            invalid = _invalid(message, str(error))
            self._lanes.submit((invalid.cluster, invalid.vm), lambda: self._refuse(message, route, invalid))
            return
        self._lanes.submit(_lane(event), lambda: self._handle(message, route, event))

    def _route(self, subject: str) -> AnyRoute | None:
        tokens = subject.split(".")
        for length in (2, 3):
            route = self._routes.get(".".join(tokens[:length]))
            if route is not None:
                return route
        return None

    async def _handle(self, message: Msg, route: AnyRoute, event: Event) -> None:
        name = route.event.subject_template.stem
        trace = Trace.from_headers(message.headers or {})
        current = handled.set((event, trace))
        try:
            with self._seconds[name].time():
                async with asyncio.timeout(_HANDLER_SECONDS):
                    await route.handler(_typed(message, event, trace))
        except Refused as error:
            await self._dead(message, error.sentence)
        except self._transient as error:
            await self._later(message, name, error)
        except Exception as error:
            log.exception("event.failed", attempt=message.metadata.num_delivered)
            if message.metadata.num_delivered >= _MAX_ATTEMPTS:
                await self._dead(message, f"failed {_MAX_ATTEMPTS} times, at last with {error!r}")
            else:
                await self._later(message, name, error)
        else:
            self._done[name].inc()
            await self._settle(message.ack())
        finally:
            handled.reset(current)

    async def _refuse(self, message: Msg, route: AnyRoute, invalid: Invalid) -> None:
        name = route.event.subject_template.stem
        with structlog.contextvars.bound_contextvars(cluster=invalid.cluster, vm=invalid.vm, event_type=name):
            try:
                if self._on_invalid is not None:
                    async with asyncio.timeout(_HANDLER_SECONDS):
                        await self._on_invalid(invalid)
            except Exception as error:
                log.exception("event.refusal_failed", attempt=message.metadata.num_delivered)
                await self._later(message, name, error)
            else:
                await self._dead(message, invalid.reason)

    async def _later(self, message: Msg, name: str, error: BaseException) -> None:
        delay = min(0.1 * 2.0 ** (message.metadata.num_delivered - 1), 30.0)
        log.warning("event.again", error=repr(error), attempt=message.metadata.num_delivered, delay_s=delay)
        _handled.labels(name, "again").inc()
        await self._settle(message.nak(delay=delay))

    async def _dead(self, message: Msg, reason: str) -> None:
        log.warning("event.dead", subject=message.subject, reason=reason)
        try:
            await self._bus.send([dead_letter(message, reason, room=self._bus.client.max_payload - _HEADER_ROOM)])
        except TryAgain as error:
            await self._later(message, "dead", error)
        else:
            _handled.labels(self._route_name(message.subject), "dead").inc()
            await self._settle(message.ack())

    def _route_name(self, subject: str) -> str:
        route = self._route(subject)
        return route.event.subject_template.stem if route else "unknown"

    async def _settle(self, answer: Awaitable[Any]) -> None:
        try:
            await answer
        except nats.errors.Error as error:
            # The server delivers it again after the acknowledgement's deadline; handlers bear a repetition.
            log.warning("event.not_settled", error=repr(error))


def dead_letter(message: Msg, reason: str, *, room: int) -> Outgoing:
    """The original bytes, as many as fit, and why they are here."""
    metadata = message.metadata
    one_line = " ".join(reason.split())[:1000]
    return Outgoing(
        subject=f"{DEAD_PREFIX}.{message.subject}",
        body=message.data[:room],
        headers={
            "Nats-Msg-Id": f"dead-{metadata.stream}-{metadata.timestamp.timestamp()}-{metadata.sequence.stream}",
            "vmfabric-reason": one_line.encode("ascii", "backslashreplace").decode(),
            "vmfabric-subject": message.subject,
            "vmfabric-attempts": str(metadata.num_delivered),
            "vmfabric-bytes": str(len(message.data)),
        },
    )


def _subjects(route: AnyRoute) -> list[str]:
    template = route.event.subject_template
    if issubclass(route.event, RequestEvent):
        return [template.stem, f"{template.stem}.>"]
    return [template.pattern(route.only)]


def _lane(event: Event) -> tuple[str, ...]:
    return (getattr(event, "cluster", ""), getattr(event, "vm", ""))


def _typed(message: Msg, event: Event, trace: Trace) -> Message[Event]:
    metadata = message.metadata
    return Message(event, trace, metadata.timestamp.astimezone(UTC), metadata.sequence.stream)


def _invalid(message: Msg, reason: str) -> Invalid:
    cluster, vm = names_of(message.data)
    return Invalid(
        subject=message.subject,
        body=message.data,
        reason=reason,
        cluster=cluster,
        vm=vm,
        at=message.metadata.timestamp.astimezone(UTC),
        trace=Trace.from_headers(message.headers or {}),
    )


def _filters(config: ConsumerConfig) -> frozenset[str]:
    # The server tells a single one in a field of its own.
    return frozenset(filter(None, (config.filter_subject, *(config.filter_subjects or ()))))


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
