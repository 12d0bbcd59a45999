"""Events as a person reads them: what happened, to whom, and what is essential about it."""

from collections.abc import Iterable

from pydantic import ValidationError
from rich.text import Text

from vmfabric.contract.guest import GuestRunning
from vmfabric.contract.iface import IfaceDrifted, IfaceReady, IfaceRemoved
from vmfabric.contract.ip import IpAllocated, IpExhausted, IpRefused, IpReleased
from vmfabric.contract.model import Event
from vmfabric.contract.node import NodeHeartbeat, NodeJoined, NodeLost, NodeReturned
from vmfabric.contract.route import BgpSessionDown, BgpSessionUp, RouteAnnounced, RouteWithdrawn
from vmfabric.contract.streams import FACTS, PASSING, REQUESTS
from vmfabric.contract.vm import (
    StepTimes,
    VmDeleted,
    VmDeleteRequested,
    VmDeleting,
    VmFailed,
    VmPlaced,
    VmReady,
    VmRequested,
)

KINDS: dict[str, type[Event]] = {event.subject_template.stem: event for event in (*REQUESTS, *FACTS, *PASSING)}
"""Every event by its subject's stem."""

_COLOURS = {
    VmRequested: "bold cyan",
    VmDeleteRequested: "bold cyan",
    VmReady: "bold green",
    VmDeleted: "bold green",
    VmFailed: "bold red",
    IpRefused: "red",
    IpExhausted: "red",
    NodeLost: "red",
    BgpSessionDown: "red",
    IfaceDrifted: "yellow",
}
_STEM_WIDTH = max(map(len, KINDS)) + 1
_WHO_WIDTH = 16
_NODE_WIDTH = 4


def kind_of(subject: str) -> type[Event] | None:
    """The kind of event that travels on a subject, or None when it is none of the contract's."""
    tokens = subject.split(".")
    for length in (3, 2):
        kind = KINDS.get(".".join(tokens[:length]))
        if kind is not None:
            return kind
    return None


def read(subject: str, body: bytes) -> Event | None:
    """The event in a message, or None when it is not one of the contract's."""
    kind = kind_of(subject)
    if kind is None:
        return None
    try:
        return kind.model_validate_json(body)
    except ValidationError:
        return None


def line(at: str, subject: str, body: bytes) -> Text:
    """One event on one line."""
    event = read(subject, body)
    if event is None:
        return Text.assemble((at, "dim"), "  ", (f"{subject:<{_STEM_WIDTH}}", "red"), " ", _shortened(body))
    stem = event.subject_template.stem
    who = f"{getattr(event, 'cluster', '')}/{event.vm}" if hasattr(event, "vm") else getattr(event, "cluster", "")
    node = getattr(event, "node", None) or ""
    return Text.assemble(
        (at, "dim"),
        "  ",
        (f"{stem:<{_STEM_WIDTH}}", _COLOURS.get(type(event), "")),
        f" {who:<{_WHO_WIDTH}} {node:<{_NODE_WIDTH}} ",
        (essence(event), "" if type(event) in _COLOURS else "dim"),
    )


def essence(event: Event) -> str:  # noqa: C901, PLR0911, PLR0912  # one case for each kind of event, and nothing else
    """What matters about an event, beside its subject."""
    match event:
        case VmRequested():
            return f"{event.cpu} CPU, {event.memory_mb} MiB, {event.disk_gb} GiB"
        case VmDeleteRequested() | IfaceRemoved() | RouteWithdrawn() | GuestRunning():
            return ""
        case VmPlaced():
            return f"generation {event.generation}, {event.mac}"
        case VmReady():
            return f"{_join(a.address for a in event.addresses)}  {_steps(event.steps_ms)}"
        case VmFailed():
            held = f"; held: {_join(event.held)}" if event.held else ""
            return f"{event.code} at step {event.step}: {event.message}{held}"
        case VmDeleting():
            return "the way back begins"
        case VmDeleted():
            return "nothing of it is left"
        case IpAllocated():
            return _join(allocated.address for allocated in event.addresses)
        case IpReleased():
            return f"{_join(event.addresses)} into quarantine"
        case IpRefused():
            return f"{event.code}: {event.message}"
        case IpExhausted():
            return f"pool {event.pool} has no {event.family} address left, {event.quarantined} in quarantine"
        case IfaceReady():
            return f"{event.interface}, mtu {event.guest.mtu}"
        case IfaceDrifted():
            return f"put back for {_join(event.vms) or 'the node'}: {'; '.join(event.repaired)}"
        case RouteAnnounced():
            return _announced(event)
        case BgpSessionUp():
            return f"with {event.reflector}"
        case BgpSessionDown():
            return f"with {event.reflector}: {event.reason}"
        case NodeJoined() | NodeLost() | NodeReturned():
            return ""
        case NodeHeartbeat():
            return f"{event.vms} VMs"
        case _:
            return type(event).__name__


def _announced(event: RouteAnnounced) -> str:
    reflectors = sorted({str(reflector) for route in event.routes for reflector in route.reflectors})
    missing = sorted({str(reflector) for route in event.routes for reflector in route.missing})
    communities = sorted({community for route in event.routes for community in route.communities})
    text = f"to {', '.join(reflectors)} with {', '.join(communities)}"
    return f"{text}; missing: {', '.join(missing)}" if missing else text


def _steps(steps: StepTimes) -> str:
    announced = "" if steps.announced is None else f" announced {steps.announced:.0f}"
    return f"placed {steps.placed:.0f} allocated {steps.allocated:.0f} wired {steps.wired:.0f}{announced} ms"


def _join(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _shortened(body: bytes) -> str:
    text = body.decode(errors="backslashreplace")
    return text if len(text) <= 120 else f"{text[:120]}… ({len(body)} bytes)"
