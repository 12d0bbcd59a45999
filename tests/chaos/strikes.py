"""What goes wrong: each strike is done, proven to have hit, and healed."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from vmfabric.contract.dataplane import KERNEL_PROTOCOL
from vmfabric.contract.streams import FACT_STREAM
from vmfabric.lab import clocks, faults, frr, processes, redundancy
from vmfabric.lab.client import connect
from vmfabric.lab.errors import LabError
from vmfabric.lab.hosts import run_on
from vmfabric.lab.lab import Lab
from vmfabric.lab.network import FABRIC_LINK, MANAGEMENT_LINK
from vmfabric.lab.processes import Program
from vmfabric.lab.services import HYPERVISOR
from vmfabric.lab.topology import CONTROL
from vmfabric.node_agent.domain.antispoof import TABLE
from vmfabric.node_agent.domain.port import LINK_GROUP

_OUR_PORTS, _OUR_ROUTES = str(LINK_GROUP), str(KERNEL_PROTOCOL)
_CUT_SECONDS = (2.0, 12.0)
_DOWN_SECONDS = (1.0, 4.0)
_RESTART_SECONDS = 20.0


class MissedError(Exception):
    """A strike that has changed nothing: the run proves nothing with it."""


Strike = Callable[[Lab, Random, str], Awaitable[str]]
"""Strikes a node, or the control plane, and returns what shows that it hit."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to strike."""

    name: str
    strike: Strike
    part: str = "node"
    """What is struck: a node, or a part of the control plane."""
    takes_routes: bool = False
    """Whether packets may be lost by it, whatever the services do."""
    restarts: bool = False
    """Whether a process of ours starts meanwhile."""

    def goes_with(self, other: "Kind") -> bool:
        """Whether both can strike at once; two that strike nodes get two nodes.

        A process that starts while its clock is wrong takes that for right, and is wrong for hours.
        """
        is_apart = self.part != other.part or (self.part == "node" and self != other)
        return is_apart and not ("clock" in {self.part, other.part} and (self.restarts or other.restarts))


async def _crash(service: str, lab: Lab, _random: Random, node: str) -> str:
    """The lab's supervisor starts it again."""
    program = await _working(service, lab, node)
    before = processes.pid(lab.state, program)
    await asyncio.to_thread(faults.crash_service, lab, program.service, program.host)
    after = await _until_other(lambda: processes.pid(lab.state, program), before)
    return f"{program.service} on {program.host}: process {before}, then {after}"


async def _working(service: str, lab: Lab, node: str) -> Program:
    """Of several that can do the same, the one that does it."""
    match service:
        case "scheduler" | "ipam":
            return redundancy.writer(lab, service) or lab.program(service, CONTROL)
        case "nats" if lab.topology.nats > 1:
            async with connect(lab.nats_url) as outside:
                return lab.program(await redundancy.led(outside, FACT_STREAM.name), CONTROL)
        case "nats" | "postgres":
            return lab.program(service, CONTROL)
        case _:
            return lab.program(service, node)


async def _kill_frr(daemon: str, lab: Lab, random: Random, node: str) -> str:
    """FRR's watchfrr starts bgpd again alone, but with zebra all the others."""
    router = lab.router(node)
    daemons = frr.DAEMONS if daemon == "all" else (daemon,)
    before = {each: frr.pid(lab.topology, router, each) for each in daemons}
    await asyncio.to_thread(faults.kill_frr, lab, node, *daemons)
    if any(frr.pid(lab.topology, router, each) is not None for each in daemons):
        raise MissedError(f"{daemon} of {node} lives on")
    await asyncio.sleep(random.uniform(*_DOWN_SECONDS))
    if daemon == "zebra":
        await asyncio.to_thread(faults.kill_frr, lab, node, *(it for it in frr.DAEMONS if it != daemon))
    await asyncio.to_thread(faults.start_frr, lab, node)
    after = {each: frr.pid(lab.topology, router, each) for each in daemons}
    return f"{node}: {', '.join(f'{each} {before[each]}, then {after[each]}' for each in daemons)}"


@dataclass(frozen=True, slots=True)
class _Cable:
    link: str
    cut: Callable[[Lab, str], None]
    restore: Callable[[Lab, str], None]


async def _cut(cable: _Cable, lab: Lab, random: Random, node: str) -> str:
    seconds = random.uniform(*_CUT_SECONDS)
    cable.cut(lab, node)
    try:
        shown = run_on(lab, node, "ip", "link", "show", cable.link)
        _expect("NO-CARRIER" in shown, f"{cable.link} of {node} has its carrier")
        await asyncio.sleep(seconds)
    finally:
        cable.restore(lab, node)
    return f"{node}: {cable.link} without carrier for {seconds:.1f} s"


async def _power(lab: Lab, random: Random, node: str) -> str:
    before = run_on(lab, node, "ip", "-o", "link", "show", "group", _OUR_PORTS).count("\n")
    await asyncio.to_thread(faults.cut_power, lab, node)
    after = run_on(lab, node, "ip", "-o", "link", "show", "group", _OUR_PORTS).count("\n")
    _expect(after == 0, f"{node} still has {after} ports")
    await asyncio.sleep(random.uniform(*_DOWN_SECONDS))
    await asyncio.to_thread(faults.restore_power, lab, node)
    return f"{node}: {before} ports, then none"


async def _flush_rules(lab: Lab, _random: Random, node: str) -> str:
    """The table that is there afterwards is another one."""
    before = _handle(lab, node)
    run_on(lab, node, "nft", "flush", "ruleset")
    after = await _until_other(partial(_handle, lab, node), before)
    return f"{node}: table {before} flushed, then {after}"


def _handle(lab: Lab, node: str) -> int | None:
    shown = json.loads(run_on(lab, node, "nft", "-j", "list", "tables"))["nftables"]
    return next((it["table"]["handle"] for it in shown if it.get("table", {}).get("name") == TABLE), None)


async def _flush_routes(lab: Lab, _random: Random, node: str) -> str:
    """`ip -s` says how many it has deleted."""
    said = run_on(lab, node, "ip", "-s", "route", "flush", "proto", _OUR_ROUTES)
    deleted = re.search(r"deleting (\d+) entries", said)
    _expect(deleted is not None, f"{node} had no routes: {said}")
    return f"{node}: {deleted.group(1) if deleted else 0} routes flushed"


async def _set_clock(lab: Lab, random: Random, node: str) -> str:
    """The services of the host say that their clock was set."""
    host = random.choice((CONTROL, node))
    hours = random.choice((-1, 1)) * random.uniform(0.1, 20)
    services = [it for it in lab.services() if it.host == host and it.service != HYPERVISOR]
    marks = [(program, processes.log_of(lab.state, program).stat().st_size) for program in services]
    clocks.set_clock(lab.state, host, hours * 3600)
    try:
        async with asyncio.timeout(_RESTART_SECONDS):
            while not (said := [it for it, mark in marks if _says(lab, it, mark, '"event": "clock.set"')]):
                await asyncio.sleep(0.1)
        await asyncio.sleep(random.uniform(*_CUT_SECONDS))
    finally:
        clocks.set_clock(lab.state, host, 0)
    return f"{host}: {hours:+.1f} h, noticed by {said[0].service} first"


def _says(lab: Lab, program: Program, mark: int, words: str) -> bool:
    with processes.log_of(lab.state, program).open("rb") as log:
        log.seek(mark)
        return words.encode() in log.read()


_MANAGEMENT = _Cable(MANAGEMENT_LINK, faults.cut_management, faults.restore_management)
_FABRIC = _Cable(FABRIC_LINK, faults.cut_fabric, faults.restore_fabric)

KINDS = (
    *(
        Kind(f"{service} killed", partial(_crash, service), part=service, restarts=True)
        for service in ("scheduler", "ipam", "nats", "postgres")
    ),
    *(
        Kind(f"{service} killed", partial(_crash, service), restarts=True)
        for service in ("node-agent", "bgp-announcer")
    ),
    Kind("management network cut", partial(_cut, _MANAGEMENT)),
    Kind("clock set", _set_clock, part="clock"),
    Kind("rules flushed", _flush_rules),
    Kind("routes flushed", _flush_routes, takes_routes=True),
    *(
        Kind(f"{each} of FRR killed", partial(_kill_frr, each), takes_routes=True)
        for each in ("bgpd", "zebra", "all")
    ),
    Kind("fabric cut", partial(_cut, _FABRIC), takes_routes=True),
    Kind("power cut", _power, takes_routes=True, restarts=True),
)


def _expect(hit: bool, otherwise: str) -> None:
    if not hit:
        raise MissedError(otherwise)


async def _until_other(read: Callable[[], int | None], before: int | None) -> int:
    async with asyncio.timeout(_RESTART_SECONDS):
        while True:
            now = read()
            if now is not None and now != before:
                return now
            await asyncio.sleep(0.02)


STRUCK = (LabError, MissedError, TimeoutError)
"""What a strike that could not be done, or has not hit, ends with."""
