"""What a handler gets, what it may be routed by, and what it may publish through."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from vmfabric.contract.envelope import Trace
from vmfabric.contract.model import Event

E_co = TypeVar("E_co", bound=Event, covariant=True)
E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Message(Generic[E_co]):
    """An event as it came from the bus."""

    event: E_co
    trace: Trace
    at: datetime
    """When the bus took it."""
    sequence: int = 0
    """The number that its stream gave it; a stream that lost its data begins again."""


Handler = Callable[[Message[E]], Awaitable[None]]
"""Returns: acknowledged. Refused: dead letter. TryAgain or anything else: redelivered later."""


@dataclass(frozen=True, slots=True)
class Route(Generic[E]):
    """Which event goes to which function."""

    event: type[E]
    handler: Handler[E]
    only: Mapping[str, str] = field(default_factory=dict)
    """Names that the subject must have, such as the node's own."""


AnyRoute = Route[Any]


class Publisher(Protocol):
    """Where facts go."""

    async def publish(self, event: Event, trace: Trace) -> None:
        """Returns when the stream keeps the event. TryAgain when it does not within the deadline."""
        ...
