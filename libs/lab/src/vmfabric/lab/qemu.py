"""Real guests: QEMU without KVM on a node of the lab, its network card plugged into the TAP that the node-agent made.

Whoever starts one is its hypervisor: the lab's own gives every VM a namespace, so it must not run meanwhile.
"""

import asyncio
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vmfabric.contract.iface import IfaceReady
from vmfabric.lab import namespaces
from vmfabric.lab.errors import LabError
from vmfabric.lab.guest_image import Image
from vmfabric.lab.lab import Lab
from vmfabric.lab.programs import ENDS_WITH_CALLER
from vmfabric.lab.qmp import Qmp

LIFE_PORT = 7
"""Whoever connects to this TCP port of a guest is told ten times a second its boot id, and the seconds since."""

MEMORY_MB = 192
"""Of a guest."""
_MIGRATION_PORT = 49152
"""Where libvirt, too, has guests arrive."""
_END_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Machine:
    """A QEMU that runs on a node."""

    node: str
    qmp: Qmp
    process: Process


@dataclass(frozen=True, slots=True)
class Pause:
    """How long a guest stood still in its migration, in seconds."""

    said: float
    """By the source, of itself: `downtime` of query-migrate."""
    seen: float
    """From the source's event STOP to the target's RESUME. What the target needs to begin is in it too, and may be
    most of it on a busy machine: 325 ms where `said` was 14."""


@asynccontextmanager
async def machine(lab: Lab, given: IfaceReady, image: Image, *, arriving: bool = False) -> AsyncIterator[Machine]:
    """The guest on the node that says `iface.ready`, until the block ends; it boots, or waits to arrive there."""
    ours, its = socket.socketpair()
    with its:
        command = namespaces.inside(lab.namespace(given.node), *_command(given, image, its.fileno()))
        command = (*ENDS_WITH_CALLER, *command, *(("-incoming", "defer") if arriving else ()))
        with _log(lab, given).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, stdout=log, stderr=log, pass_fds=(its.fileno(),)
            )
    try:
        try:
            qmp = await Qmp.open(ours)
        except (LabError, OSError) as error:
            raise LabError(f"QEMU does not start on {given.node}: {_log(lab, given).read_text()[-500:]}") from error
        try:
            yield Machine(given.node, qmp, process)
        finally:
            qmp.close()
    finally:
        await _end(process)


async def begin_migration(lab: Lab, source: Machine, target: Machine) -> None:
    """Have the source send its guest to the target, by the management network; both tell by events how it goes."""
    address = f"tcp:{lab.topology.node(target.node).management}:{_MIGRATION_PORT}"
    for one in (source, target):
        capability = {"capability": "events", "state": True}
        await one.qmp.execute("migrate-set-capabilities", capabilities=[capability])
    await target.qmp.execute("migrate-incoming", uri=address)
    await source.qmp.execute("migrate", uri=address)


async def end_migration(source: Machine, target: Machine) -> Pause:
    """The guest runs on the target and the source has said so; its QEMU ends."""
    resumed = await target.qmp.event("RESUME")
    stopped = await source.qmp.event("STOP")
    await source.qmp.event("MIGRATION", status="completed")
    told = await source.qmp.execute("query-migrate")
    await _end(source.process)
    return Pause(said=told["downtime"] / 1000, seen=resumed.at - stopped.at)


def _command(given: IfaceReady, image: Image, qmp: int) -> tuple[str, ...]:
    network = given.guest
    addresses = ",".join(f"{address.prefix}@{address.gateway}" for address in network.addresses)
    options = {
        "-chardev": f"socket,id=qmp,fd={qmp}",
        "-mon": "chardev=qmp,mode=control",
        "-netdev": f"tap,id=net0,ifname={given.interface},script=no,downscript=no",
        "-device": f"virtio-net-pci,netdev=net0,mac={network.mac},romfile=",
    }
    boot = image.boot(MEMORY_MB, f"mtu={network.mtu}", f"addresses={addresses}")
    return (*boot, *(word for option in options.items() for word in option))


def _log(lab: Lab, given: IfaceReady) -> Path:
    """What QEMU says, and the guest on its console."""
    return lab.state.logs / f"{given.node}-qemu-{given.vm}.log"


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):  # it has ended by itself
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _END_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
