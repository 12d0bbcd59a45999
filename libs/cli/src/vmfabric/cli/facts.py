"""Events as a person reads them: what happened, to whom, and what is essential about it."""

from collections.abc import Iterable, Mapping, Sequence

from rich.text import Text

from vmfabric.cli.screen import duration
from vmfabric.contract.guest import GuestRunning
from vmfabric.contract.iface import IfaceDrifted, IfaceReady, IfaceRemoved
from vmfabric.contract.ip import IpAllocated, IpExhausted, IpRefused, IpReleased
from vmfabric.contract.model import Event
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
from vmfabric.contract.streams import DEAD_PREFIX
from vmfabric.contract.vm import (
    MigrationTimes,
    StepTimes,
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
from vmfabric.lab.client import KINDS, read

_COLOURS = {
    VmRequested: "bold cyan",
    VmDeleteRequested: "bold cyan",
    VmMigrateRequested: "bold cyan",
    VmMigrated: "bold green",
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
_WHO_WIDTH = 20
_NODE_WIDTH = 6
_SHOWN_CHANGES = 3
_CHANGE_WIDTH = 100
_BODY_WIDTH = 120
_REASON = "vmfabric-reason"
"""The header in which a dead letter says why it is one."""


def line(at: str, subject: str, body: bytes, headers: Mapping[str, str] | None = None) -> Text:
    """One event on one line, in columns: time, kind, whose, node, and what is essential about it."""
    event = read(subject, body)
    if event is None:
        return _unread(at, subject, body, headers or {})
    stem = event.subject_template.stem
    who = f"{getattr(event, 'cluster', '')}/{event.vm}" if hasattr(event, "vm") else getattr(event, "cluster", "")
    node = getattr(event, "node", None) or ""
    cut = [full for full, width in ((who, _WHO_WIDTH), (node, _NODE_WIDTH)) if len(full) > width]
    return Text.assemble(
        (at, "dim"),
        "  ",
        (f"{stem:<{_STEM_WIDTH}}", _COLOURS.get(type(event), "")),
        f" {_fitted(who, _WHO_WIDTH)} {_fitted(node, _NODE_WIDTH)} ",
        (_printable(essence(event)), "" if type(event) in _COLOURS else "dim"),
        *([f"  ({', '.join(cut)})"] if cut else []),
    )


def _unread(at: str, subject: str, body: bytes, headers: Mapping[str, str]) -> Text:
    original = subject.removeprefix(f"{DEAD_PREFIX}.")
    kind = "unreadable" if original == subject else DEAD_PREFIX
    reason = headers.get(_REASON, "")
    return Text.assemble(
        (at, "dim"),
        "  ",
        (f"{kind:<{_STEM_WIDTH}}", "bold red"),
        f" {_fitted(_printable(original), _WHO_WIDTH + _NODE_WIDTH + 1)} ",
        (f"{_printable(reason)}  " if reason else "", "red"),
        (_shortened(body), "dim"),
    )


def _fitted(text: str, width: int) -> str:
    """The text in so many characters; of a longer one both ends."""
    if len(text) <= width:
        return f"{text:<{width}}"
    end = width // 2
    return f"{text[: width - end - 1]}…{text[-end:]}"


def essence(event: Event) -> str:  # noqa: C901, PLR0912  # one case for each kind of event, and nothing else
    """What matters about an event, beside its subject."""
    match event:
        case VmRequested():
            return f"{event.cpu} CPU, {_memory(event.memory_mb)} memory, {event.disk_gb} GiB disk"
        case VmDeleteRequested() | IfaceRemoved() | RouteWithdrawn() | GuestRunning():
            return ""
        case VmPlaced():
            return f"generation {event.generation}, {event.mac}"
        case VmReady():
            return f"{_join(a.address for a in event.addresses)}  {_steps(event.steps_ms)}"
        case VmMigrateRequested():
            return f"to {event.node or 'any other node'}"
        case VmMigrating():
            return f"from {event.source} to {event.target}, generation {event.generation}"
        case VmMigrated():
            return f"from {event.source}, {_moved(event.steps_ms)}" if event.steps_ms else "it was there already"
        case VmFailed():
            held = f"; held: {_join(event.held)}" if event.held else ""
            return f"{event.code} at step {event.step}: {event.message}{held}"
        case VmDeleting():
            return "the way back begins"
        case VmDeleted():
            return "nothing of it is left" if event.generation is not None else "there was no such VM"
        case IpAllocated():
            return _join(allocated.address for allocated in event.addresses)
        case IpReleased():
            return f"{_join(event.addresses)} into quarantine" if event.addresses else "it held none"
        case IpRefused():
            return f"{event.code}: {event.message}"
        case IpExhausted():
            return f"pool {event.pool} has no {event.family} address left, {event.quarantined} in quarantine"
        case IfaceReady():
            return f"{event.interface}, mtu {event.guest.mtu}"
        case IfaceDrifted():
            return f"put back for {_first(event.vms, ', ') or 'the node'}: {_first(event.repaired, '; ')}"
        case RouteAnnounced():
            return _announced(event)
        case RouteLost():
            return "; ".join(route.selected for route in event.routes)
        case BgpSessionUp():
            return f"with {event.reflector}"
        case BgpSessionDown():
            return f"with {event.reflector}: {event.reason}"
        case NodeDraining():
            staying = _join(f"{it.vm}: {it.reason}" for it in event.staying[:3])
            return f"{event.left} VMs left, {event.moving} on their way{f'; staying: {staying}' if staying else ''}"
        case NodeFenced():
            return f"{event.fence} says that it does not run"
        case NodeJoined() | NodeLost() | NodeReturned() | NodeDrained():
            return ""
        case NodeHeartbeat():
            vms = "1 VM" if event.vms == 1 else f"{event.vms} VMs"
            problems = [event.problem, *(f"{vm}: {sentence}" for vm, sentence in event.vm_problems.items())]
            return "; ".join((vms, *(it for it in problems if it is not None)))
        case _:
            return type(event).__name__


def _announced(event: RouteAnnounced) -> str:
    reflectors = sorted({str(reflector) for route in event.routes for reflector in route.reflectors})
    missing = sorted({str(reflector) for route in event.routes for reflector in route.missing})
    communities = sorted({community for route in event.routes for community in route.communities})
    text = f"to {', '.join(reflectors)} with {', '.join(communities)}"
    return f"{text}; missing: {', '.join(missing)}" if missing else text


def _steps(steps: StepTimes) -> str:
    times = {"placed": steps.placed, "allocated": steps.allocated, "wired": steps.wired}
    times |= {} if steps.announced is None else {"announced": steps.announced}
    return ", ".join(f"{step} {duration(milliseconds / 1000)}" for step, milliseconds in times.items())


def _memory(mib: int) -> str:
    return f"{mib} MiB" if mib % 1024 else f"{mib // 1024} GiB"


def _first(values: Sequence[str], separator: str) -> str:
    shown = [
        value if len(value) <= _CHANGE_WIDTH else f"{value[:_CHANGE_WIDTH]}…" for value in values[:_SHOWN_CHANGES]
    ]
    more = len(values) - len(shown)
    return separator.join(shown) + (f" and {more} more" if more else "")


def _moved(steps: MigrationTimes) -> str:
    moments = {moment: getattr(steps, moment) for moment in ("wired", "running", "announced", "left", "settled")}
    return ", ".join(f"{moment} {duration(at / 1000)}" for moment, at in moments.items() if at is not None)


def _join(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _printable(text: str) -> str:
    # What somebody has sent may hold a terminal's control sequences.
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _shortened(body: bytes) -> str:
    text = _printable(body.decode(errors="backslashreplace"))
    return text if len(text) <= _BODY_WIDTH else f"{text[:_BODY_WIDTH]}… ({len(body)} bytes)"
