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
from core import CoreKernel, core_kernel

from vmfabric.contract.addresses import HostAddress
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
    async with core_kernel(lab) as core:
        for graceful_restart in (False, True):
            for bfd in (False, True):
                await _set(lab, outside, graceful_restart=graceful_restart, bfd=bfd)
                vm = f"vm-{int(graceful_restart)}{int(bfd)}"
                await cluster.made(outside, vm, node=_NODE)
                address = await cluster.found(outside, vm)
                for failure, measure in _FAILURES.items():
                    await _until(partial(_is_whole, lab, address), "the VM answers, and every session is up")
                    seconds = await measure(lab, core, address)
                    cells.append(Cell(failure, graceful_restart, bfd, seconds))
                    print(f"  {failure}, {_setting(graceful_restart, bfd)}: {_shown(seconds)}", flush=True)
                await _until(partial(_is_whole, lab, address), "the VM answers, and every session is up")
                await cluster.removed(outside, vm)
    return cells


async def _set(lab: Lab, outside: LabClient, *, graceful_restart: bool, bfd: bool) -> None:
    command = "no bgp graceful-restart-disable" if graceful_restart else "bgp graceful-restart-disable"
    lines = ["configure terminal", f"router bgp {lab.topology.asn}", command, "end", "clear bgp *"]
    for reflector in lab.topology.reflectors:
        frr.vtysh(lab.topology, reflector, *lines)
    document = cluster.spec("cluster")
    await cluster.apply(outside, bgp={**document["bgp"], "bfd": bfd})
    await _until(partial(_sessions_are_up, lab), "every session is up")


async def _killed(daemons: Sequence[str], lab: Lab, _core: CoreKernel, address: HostAddress) -> float | None:
    """How long a guest that still runs does not answer."""
    async with pinged(lab, "core", address) as pings:
        await asyncio.sleep(0.5)
        faults.kill_frr(lab, _NODE, *daemons)
        await asyncio.sleep(_AWAY_SECONDS)
        await asyncio.to_thread(faults.start_frr, lab, _NODE)
        await _until(partial(_is_whole, lab, address), "the VM answers again")
        await asyncio.sleep(2.0)
    return pings.lost * EVERY_SECONDS


async def _power_cut(lab: Lab, core: CoreKernel, address: HostAddress) -> float | None:
    """How long the core goes on sending to a dead node."""
    started = time.monotonic()
    faults.cut_power(lab, _NODE)
    gone_at = await core.wait_until_gone(str(address), started, _PATIENCE_SECONDS)
    await asyncio.to_thread(faults.restore_power, lab, _NODE)
    return gone_at and gone_at - started


async def _link_cut(lab: Lab, core: CoreKernel, address: HostAddress) -> float | None:
    """The same when only its cable to the fabric is out."""
    started = time.monotonic()
    faults.cut_fabric(lab, _NODE)
    gone_at = await core.wait_until_gone(str(address), started, _PATIENCE_SECONDS)
    faults.restore_fabric(lab, _NODE)
    return gone_at and gone_at - started


_FAILURES: dict[str, Callable[[Lab, CoreKernel, HostAddress], Awaitable[float | None]]] = {
    "bgpd killed: the guest does not answer for": partial(_killed, ["bgpd"]),
    "all of FRR killed: the guest does not answer for": partial(_killed, []),
    "power cut: the core sends to the dead node for": _power_cut,
    "link cut: the core sends to the dead node for": _link_cut,
}


def _is_whole(lab: Lab, address: HostAddress) -> bool:
    routes = {str(prefix.network_address) for prefix in bgp_routes(lab, "core")}
    return str(address) in routes and _sessions_are_up(lab) and answers_ping(lab, "core", address)


def _sessions_are_up(lab: Lab) -> bool:
    for node in lab.topology.nodes:
        shown = json.loads(frr.vtysh(lab.topology, node, "show bgp ipv4 unicast summary json"))
        states = [peer["state"] for peer in shown.get("peers", {}).values()]
        if states != ["Established"] * len(lab.topology.reflectors):
            return False
    return True


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _BACK_SECONDS
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_BACK_SECONDS:.0f} s until {what}")
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
