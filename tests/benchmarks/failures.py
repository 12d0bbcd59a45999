"""What each failure of a node costs the core: with and without BFD, with and without graceful restart.

Graceful restart (RFC 4724) is what the reflectors do for a node: as helpers they keep its routes when its session
ends. The nodes always say that they can restart gracefully.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import cluster

from vmfabric.contract.addresses import HostAddress, host_prefix
from vmfabric.lab import faults, frr
from vmfabric.lab.client import LabClient
from vmfabric.lab.hosts import answers_ping, bgp_routes
from vmfabric.lab.lab import Lab
from vmfabric.lab.pings import EVERY_SECONDS, pinged

_NODE = "n1"
_AWAY_SECONDS = 3.0
"""Until what was killed is started again."""
_PATIENCE_SECONDS = 30.0
_BACK_SECONDS = 60.0
_REPLACED_SECONDS = 0.3
_STEADY_SECONDS = 3.0
_WHOLE = "the VM answers, and every session is up"


@dataclass(frozen=True, slots=True)
class Cell:
    """One failure in one setting; seconds."""

    failure: str
    graceful_restart: bool
    bfd: bool
    seconds: float | None
    """None: not within _PATIENCE_SECONDS."""


async def run(lab: Lab, outside: LabClient) -> list[Cell]:
    """Measure in a lab with the cluster applied."""
    cells: list[Cell] = []
    for graceful_restart in (False, True):
        if graceful_restart:
            _help_restarts(lab)
        for bfd in (False, True):
            await _set(lab, outside, bfd=bfd)
            vm = f"vm-{int(graceful_restart)}{int(bfd)}"
            await cluster.made(outside, vm, node=_NODE)
            address = await cluster.found(outside, vm)
            for failure, measure in _FAILURES.items():
                await _until(partial(_is_whole, lab, address, bfd=bfd), _WHOLE)
                seconds = await measure(lab, address)
                cells.append(Cell(failure, graceful_restart, bfd, seconds))
                print(f"  {failure}, {_setting(graceful_restart, bfd)}: {_shown(seconds)}", flush=True)
            await _until(partial(_is_whole, lab, address, bfd=bfd), _WHOLE)
            await cluster.removed(outside, vm)
    return cells


def _help_restarts(lab: Lab) -> None:
    """The lab's reflectors do not, by their configuration."""
    lines = ["configure terminal", f"router bgp {lab.topology.asn}", "no bgp graceful-restart-disable", "end"]
    for reflector in lab.topology.reflectors:
        frr.vtysh(lab.topology, reflector, *lines, "clear bgp *")


async def _set(lab: Lab, outside: LabClient, *, bfd: bool) -> None:
    document = cluster.spec("cluster")
    await cluster.apply(outside, bgp={**document["bgp"], "bfd": bfd})
    await _until(partial(_sessions_are_up, lab), "every session is up")


async def _killed(daemons: Sequence[str], lab: Lab, address: HostAddress) -> float | None:
    """How long a guest that still runs does not answer."""
    async with pinged(lab, "core", address) as pings:
        await asyncio.sleep(0.5)
        faults.kill_frr(lab, _NODE, *daemons)
        await asyncio.sleep(_AWAY_SECONDS)
        await asyncio.to_thread(faults.start_frr, lab, _NODE)
        await _until(partial(_is_whole, lab, address, bfd=False), "the VM answers again")
        await asyncio.sleep(2.0)
    return pings.lost * EVERY_SECONDS


async def _power_cut(lab: Lab, address: HostAddress) -> float | None:
    """How long the core goes on sending to a dead node."""
    started = time.monotonic()
    faults.cut_power(lab, _NODE)
    gone_at = await _gone_at(lab, address, started + _PATIENCE_SECONDS)
    await asyncio.to_thread(faults.restore_power, lab, _NODE)
    return gone_at and gone_at - started


async def _link_cut(lab: Lab, address: HostAddress) -> float | None:
    """The same when only its cable to the fabric is out."""
    started = time.monotonic()
    faults.cut_fabric(lab, _NODE)
    gone_at = await _gone_at(lab, address, started + _PATIENCE_SECONDS)
    faults.restore_fabric(lab, _NODE)
    return gone_at and gone_at - started


async def _gone_at(lab: Lab, address: HostAddress, deadline: float) -> float | None:
    """When the core stopped using the node; a route that is replaced is gone for an instant only."""
    while (now := time.monotonic()) < deadline:
        if not await asyncio.to_thread(_is_routed, lab, address):
            await asyncio.sleep(_REPLACED_SECONDS)
            if not await asyncio.to_thread(_is_routed, lab, address):
                return now
    return None


_FAILURES: dict[str, Callable[[Lab, HostAddress], Awaitable[float | None]]] = {
    "bgpd killed: the guest does not answer for": partial(_killed, ["bgpd"]),
    "all of FRR killed: the guest does not answer for": partial(_killed, []),
    "power cut: the core sends to the dead node for": _power_cut,
    "link cut: the core sends to the dead node for": _link_cut,
}


def _is_whole(lab: Lab, address: HostAddress, *, bfd: bool) -> bool:
    sessions = _sessions_are_up(lab) and (not bfd or _is_watched_by_bfd(lab))
    return sessions and _is_routed(lab, address) and answers_ping(lab, "core", address)


def _is_routed(lab: Lab, address: HostAddress) -> bool:
    return host_prefix(address) in bgp_routes(lab, "core")


def _is_watched_by_bfd(lab: Lab) -> bool:
    peers = json.loads(frr.vtysh(lab.topology, lab.router(_NODE), "show bfd peers json"))
    return [peer["status"] for peer in peers] == ["up"] * len(lab.topology.reflectors)


def _sessions_are_up(lab: Lab) -> bool:
    for node in lab.topology.nodes:
        shown = json.loads(frr.vtysh(lab.topology, node, "show bgp ipv4 unicast summary json"))
        states = [peer["state"] for peer in shown.get("peers", {}).values()]
        if states != ["Established"] * len(lab.topology.reflectors):
            return False
    return True


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _BACK_SECONDS
    since = time.monotonic()
    # For a while: a reflector that has kept routes over a restart drops them for a moment when it hears the new ones.
    while time.monotonic() - since < _STEADY_SECONDS:
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_BACK_SECONDS:.0f} s until {what}")
        if not await asyncio.to_thread(condition):
            since = time.monotonic()
        await asyncio.sleep(0.1)


def _setting(graceful_restart: bool, bfd: bool) -> str:
    return f"graceful restart {'on' if graceful_restart else 'off'}, BFD {'on' if bfd else 'off'}"


def _shown(seconds: float | None) -> str:
    return f"over {_PATIENCE_SECONDS:.0f} s" if seconds is None else f"{seconds:.2f} s"


def table(cells: list[Cell]) -> str:
    """The figures for a person."""
    settings = list(dict.fromkeys((cell.graceful_restart, cell.bfd) for cell in cells))
    lines = [
        f"{'':<52}"
        + "".join(f"{'GR on' if gr else 'GR off':>10}, {'BFD' if bfd else '-':<4}" for gr, bfd in settings)
    ]
    for failure in _FAILURES:
        row = {(cell.graceful_restart, cell.bfd): cell.seconds for cell in cells if cell.failure == failure}
        lines.append(f"{failure:<52}" + "".join(f"{_shown(row[setting]):>16}" for setting in settings))
    return "\n".join(lines)
