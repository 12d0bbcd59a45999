"""The streams that keep events, and which subjects each keeps.

The subjects are named one by one: a stream on `vm.>` would answer the requests on `vm.get` with its own
acknowledgement.
"""

from dataclasses import dataclass

from vmfabric.contract.guest import GuestRunning
from vmfabric.contract.iface import IfaceDrifted, IfaceReady, IfaceRemoved
from vmfabric.contract.ip import IpAllocated, IpExhausted, IpRefused, IpReleased
from vmfabric.contract.model import Event, Fact, RequestEvent
from vmfabric.contract.node import (
    NodeDrained,
    NodeDraining,
    NodeFenced,
    NodeHeartbeat,
    NodeJoined,
    NodeLost,
    NodeReturned,
)
from vmfabric.contract.route import BgpSessionDown, BgpSessionUp, RouteAnnounced, RouteLost, RouteWithdrawn
from vmfabric.contract.vm import (
    VmDecided,
    VmDeleted,
    VmDeleteRequested,
    VmDeleting,
    VmFailed,
    VmMigrated,
    VmMigrateRequested,
    VmMigrating,
    VmPlaced,
    VmReady,
    VmRequested,
)

REQUESTS: tuple[type[RequestEvent], ...] = (VmRequested, VmDeleteRequested, VmMigrateRequested)
"""Published by anybody; accepted on the bare stem and with the names behind it."""

FACTS: tuple[type[Fact], ...] = (
    VmDecided,
    VmPlaced,
    VmReady,
    VmFailed,
    VmMigrating,
    VmMigrated,
    VmDeleting,
    VmDeleted,
    IpAllocated,
    IpRefused,
    IpReleased,
    IpExhausted,
    IfaceReady,
    IfaceRemoved,
    IfaceDrifted,
    RouteAnnounced,
    RouteLost,
    RouteWithdrawn,
    BgpSessionUp,
    BgpSessionDown,
    GuestRunning,
    NodeJoined,
    NodeLost,
    NodeFenced,
    NodeReturned,
    NodeDraining,
    NodeDrained,
)
"""Kept, in this stream's order."""

PASSING: tuple[type[Fact], ...] = (NodeHeartbeat,)
"""Not kept."""

DEAD_PREFIX = "dead"
"""`dead.<subject>` keeps what could not be read, with the reason in its headers."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A JetStream stream."""

    name: str
    subjects: tuple[str, ...]
    max_age_seconds: int
    max_bytes: int


def _request_subjects(event: type[Event]) -> tuple[str, ...]:
    return (event.subject_template.stem, f"{event.subject_template.stem}.>")


_DAY = 24 * 3600

REQUEST_STREAM = Stream(
    "REQUESTS", tuple(s for event in REQUESTS for s in _request_subjects(event)), 7 * _DAY, 1 << 30
)
FACT_STREAM = Stream("FACTS", tuple(event.subject_template.pattern() for event in FACTS), 7 * _DAY, 4 << 30)
DEAD_STREAM = Stream("DEAD", (f"{DEAD_PREFIX}.>",), 30 * _DAY, 1 << 30)

STREAMS = (REQUEST_STREAM, FACT_STREAM, DEAD_STREAM)
