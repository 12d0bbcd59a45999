"""Somebody outside of vmfabric: asks for VMs, asks the services, and hears every event."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import BaseModel, ValidationError

from vmfabric.contract.model import Event
from vmfabric.contract.node import NodeHeartbeat
from vmfabric.contract.streams import DEAD_PREFIX, FACTS, PASSING, REQUESTS
from vmfabric.lab.errors import LabError
from vmfabric.runtime import micro
from vmfabric.runtime.bucket import read_values
from vmfabric.runtime.bus import open_client

KINDS: Mapping[str, type[Event]] = {event.subject_template.stem: event for event in (*REQUESTS, *FACTS, *PASSING)}
"""Every event by its subject's stem."""

E = TypeVar("E", bound=Event)
A = TypeVar("A", bound=BaseModel)

_LAST = 15
"""Events that a time-out tells of."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A message as it came."""

    at: float
    """time.monotonic()."""
    subject: str
    body: bytes
    headers: Mapping[str, str]
    event: Event | None
    """None when it is none of the contract's: a dead letter, or a request that nobody can read."""


def read(subject: str, body: bytes) -> Event | None:
    """The event in a message, or None when it is none of the contract's."""
    tokens = subject.split(".")
    kinds = (KINDS.get(".".join(tokens[:length])) for length in (3, 2))
    kind = next((kind for kind in kinds if kind is not None), None)
    if kind is None:
        return None
    try:
        return kind.model_validate_json(body)
    except ValidationError:
        return None


def subjects(*, heartbeats: bool = False) -> list[str]:
    """Every subject that an event or a dead letter may travel on."""
    quiet = NodeHeartbeat.subject_template.stem
    stems = [stem for stem in KINDS if heartbeats or stem != quiet]
    return [subject for stem in stems for subject in (stem, f"{stem}.>")] + [f"{DEAD_PREFIX}.>"]


class LabClient:
    """A connection to the bus that keeps all that it hears."""

    def __init__(self, client: Client, on_heard: Callable[[Heard], None] | None) -> None:
        self.client = client
        self.heard: list[Heard] = []
        """Everything since the connection was made, in order."""
        self._on_heard = on_heard
        self._news = asyncio.Condition()

    async def publish(self, subject: str, body: Mapping[str, Any] | bytes) -> None:
        """A request as anybody may make it: JSON without a header. Returns when the stream keeps it."""
        data = body if isinstance(body, bytes) else _json(body)
        await self.client.jetstream(timeout=5).publish(subject, data)

    async def desired(self) -> Mapping[str, bytes]:
        """The bucket of desired state, every key of it."""
        return await read_values(self.client, self.client.jetstream(timeout=5), [">"])

    async def ask(self, subject: str, body: Mapping[str, Any], answer: type[A]) -> A:
        """Ask a service. Refused with its code and sentence, TryAgain when nobody answers."""
        return answer.model_validate_json(await micro.request(self.client, subject, _json(body)))

    def events(self, kind: type[E], **fields: object) -> list[E]:
        """The events of this kind that were heard and have these fields."""
        return [heard.event for heard in self.heard if _fits(heard.event, kind, fields)]  # type: ignore[misc]

    def when(self, kind: type[Event], **fields: object) -> float:
        """When (time.monotonic()) the first such event was heard. LabError when none was."""
        for heard in self.heard:
            if _fits(heard.event, kind, fields):
                return heard.at
        raise LabError(f"no {_words(kind, fields)} was heard")

    async def wait_for(
        self,
        kind: type[E],
        *,
        seconds: float = 15.0,
        after: int = 0,
        unless: type[Event] | None = None,
        **fields: object,
    ) -> E:
        """The first event of this kind with these fields, heard already or to come.

        With `after`, those that were among the first so many heard do not count. LabError, with what was heard
        instead, when none comes in time, or as soon as an event of the kind `unless` with these fields comes.
        """
        deadline = time.monotonic() + seconds
        async with self._news:
            while True:
                for heard in self.heard[after:]:
                    if _fits(heard.event, kind, fields):
                        return heard.event  # type: ignore[return-value]
                    if unless is not None and _fits(heard.event, unless, fields):
                        said = heard.body.decode(errors="replace")
                        raise LabError(f"instead of {_words(kind, fields)} came {heard.subject} {said}")
                try:
                    async with asyncio.timeout(deadline - time.monotonic()):
                        await self._news.wait()
                except TimeoutError as error:
                    raise LabError(self._complaint(kind, fields, seconds)) from error

    async def received(self, message: Msg) -> None:
        """Keep a message."""
        heard = Heard(
            time.monotonic(),
            message.subject,
            message.data,
            message.headers or {},
            read(message.subject, message.data),
        )
        self.heard.append(heard)
        if self._on_heard is not None:
            self._on_heard(heard)
        async with self._news:
            self._news.notify_all()

    def _complaint(self, kind: type[Event], fields: Mapping[str, object], seconds: float) -> str:
        if not self.heard:
            return f"no {_words(kind, fields)} within {seconds:.0f} s, nor any other event"
        last = "\n".join(
            f"  {heard.subject} {heard.body.decode(errors='replace')[:200]}" for heard in self.heard[-_LAST:]
        )
        return (
            f"no {_words(kind, fields)} within {seconds:.0f} s; "
            f"of {len(self.heard)} messages heard the last were:\n{last}"
        )


@asynccontextmanager
async def connect(url: str, on_heard: Callable[[Heard], None] | None = None) -> AsyncIterator[LabClient]:
    """A client that hears everything from now on, but for what is said while the bus is away."""
    async with await open_client(url, lasting=True) as client:
        outside = LabClient(client, on_heard)
        for subject in subjects():
            await client.subscribe(subject, cb=outside.received)
        await client.flush()
        yield outside


def _words(kind: type[Event], fields: Mapping[str, object]) -> str:
    return " ".join([kind.subject_template.stem, *(f"{name}={value}" for name, value in fields.items())])


def _fits(event: Event | None, kind: type[Event], fields: Mapping[str, object]) -> bool:
    return isinstance(event, kind) and all(getattr(event, name) == value for name, value in fields.items())


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode()
