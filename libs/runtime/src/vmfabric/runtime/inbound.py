"""From the bytes on the bus to a typed event, or to the reason why not."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from vmfabric.contract.envelope import Trace
from vmfabric.contract.model import Event, Request
from vmfabric.contract.names import ClusterName, VmName
from vmfabric.runtime.complaints import repeated_field, sentence

MAX_BODY_BYTES = 64 * 1024
"""No event of the contract comes near it."""

E = TypeVar("E", bound=Event)

_CLUSTER = TypeAdapter[str](ClusterName)
_VM = TypeAdapter[str](VmName)


@dataclass(frozen=True, slots=True)
class Invalid:
    """Input that is not the event it should be."""

    subject: str
    body: bytes
    reason: str
    """A sentence for whoever sent it."""
    cluster: str | None
    """As far as it could be read, and only if it is a valid name."""
    vm: str | None
    at: datetime
    trace: Trace


class UnreadableError(Exception):
    """The bytes are not the event; the text says why."""


def parse(kind: type[E], subject: str, body: bytes) -> E:
    """The event, or UnreadableError. Names behind the subject must be those of the body."""
    if len(body) > MAX_BODY_BYTES:
        raise UnreadableError(f"the body has {len(body)} bytes; an event has at most {MAX_BODY_BYTES}")
    try:
        event = kind.model_validate_json(body)
    except ValidationError as error:
        raise UnreadableError(sentence(error)) from error
    if issubclass(kind, Request) and (name := repeated_field(body)):
        raise UnreadableError(f"the field {name!r} stands there twice; which one is meant?")
    if subject not in {kind.subject_template.stem, event.subject()}:
        raise UnreadableError(f"the subject is {subject}, but the body belongs to {event.subject()}")
    return event


def names_of(body: bytes) -> tuple[str | None, str | None]:
    """Cluster and VM of a body that is not a valid event, where they can be read and are valid names."""
    if len(body) > MAX_BODY_BYTES:
        return None, None
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None, None
    if not isinstance(found, Mapping):
        return None, None
    return _name(_CLUSTER, found.get("cluster")), _name(_VM, found.get("vm"))


def _name(kind: TypeAdapter[str], value: object) -> str | None:
    try:
        return kind.validate_python(value)
    except ValidationError:
        return None
