"""CloudEvents binary mode over NATS headers, and the trace that an event belongs to.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/nats-protocol-binding.md and
https://www.w3.org/TR/trace-context/
"""

import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from vmfabric.contract.model import Event

_TRACEPARENT = re.compile(r"\A00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}\Z")


@dataclass(frozen=True, slots=True)
class Trace:
    """A W3C trace: the same id from the request to the last fact that follows from it."""

    trace_id: str

    @staticmethod
    def new() -> "Trace":
        """A trace of its own."""
        return Trace(secrets.token_hex(16))

    @staticmethod
    def from_headers(headers: Mapping[str, str]) -> "Trace":
        """The trace that the sender named, or a new one."""
        match = _TRACEPARENT.match(headers.get("traceparent", ""))
        return Trace(match.group(1)) if match else Trace.new()

    def traceparent(self) -> str:
        """A header for a new span of this trace."""
        return f"00-{self.trace_id}-{secrets.token_hex(8)}-01"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is published: a subject, a body, and headers that never change, so a repetition is recognised."""

    subject: str
    body: bytes
    headers: dict[str, str]


def outgoing(event: Event, *, source: str, trace: Trace, at: datetime, event_id: str | None = None) -> Outgoing:
    """The message for an event. `source` is the service's name; the id is new unless given."""
    identity = event_id or str(uuid.uuid4())
    return Outgoing(
        subject=event.subject(),
        body=event.model_dump_json(exclude_none=True).encode(),
        headers={
            "ce-specversion": "1.0",
            "ce-id": identity,
            "ce-source": f"/vmfabric/{source}",
            "ce-type": event.event_type(),
            "ce-time": at.astimezone(UTC).isoformat(),
            "content-type": "application/json",
            "traceparent": trace.traceparent(),
            "Nats-Msg-Id": identity,
        },
    )
