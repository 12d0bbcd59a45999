"""A real guest, with a kernel of its own, moves to the other node and back while the core pings it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import groupby
from pathlib import Path

import pytest

from outside.cluster import CLUSTER, Cluster, address_of
from outside.real_guests import BOOT_SECONDS, left_to_qemu
from vmfabric.contract.addresses import Family
from vmfabric.contract.cluster import Virtualization
from vmfabric.contract.guest import GuestRunning
from vmfabric.contract.iface import IfaceReady
from vmfabric.contract.vm import VmFailed, VmMigrated, VmReady
from vmfabric.lab import guest_image, namespaces, qemu
from vmfabric.lab.guest_image import Image
from vmfabric.lab.hosts import bgp_routes
from vmfabric.lab.lab import Lab
from vmfabric.lab.pings import EVERY_SECONDS, pinged
from vmfabric.lab.qemu import LIFE_PORT, Machine, Pause

pytestmark = pytest.mark.lab

VM = "real1"
"""No other test's: when the lab's hypervisors are back they read of it, and would take it for another VM's past."""
HANDOVER_SECONDS = 0.15
"""From the guest's first moment on the target until packets find it there: 10 to 30 ms, and up to 100 were seen on
two cores that had twice as much to do as they can."""


@dataclass(frozen=True, slots=True)
class Journey:
    """What both ways have in common."""

    cluster: Cluster
    ready: VmReady
    image: Image
    machines: AsyncExitStack
    lives: list[str]
    """What the guest says over one connection from the core, the same one all the time."""


@asynccontextmanager
async def printed(lab: Lab, *command: str) -> AsyncIterator[list[str]]:
    """The lines that a program in the core prints while the block lasts."""
    lines: list[str] = []
    program = namespaces.inside(lab.namespace("core"), *command)
    process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)

    async def read(stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            lines.append(line.decode().strip())

    assert process.stdout is not None
    reading = asyncio.create_task(read(process.stdout))
    try:
        yield lines
    finally:
        with suppress(ProcessLookupError):  # it has ended by itself
            process.terminate()
        await process.wait()
        await reading


async def grown(lines: list[str]) -> None:
    """One more is there than now."""
    before = len(lines)
    async with asyncio.timeout(10):
        while len(lines) == before:
            await asyncio.sleep(0.01)


async def migrate(journey: Journey, source: Machine, node: str, *, say: bool) -> tuple[Machine, Pause]:
    """As a hypervisor does it; without a word of ours the node-agent hears of it by QEMU's own RARP."""
    cluster = journey.cluster
    cluster.outside.heard.clear()
    await cluster.outside.publish("vm.migrate.requested", {"cluster": CLUSTER, "vm": VM, "node": node})
    wired = await cluster.outside.wait_for(IfaceReady, vm=VM, node=node)
    target = await journey.machines.enter_async_context(
        qemu.machine(cluster.lab, wired, journey.image, arriving=True)
    )
    if say:  # it announces nothing itself, so that it is our word alone that is acted upon
        await target.qmp.execute("migrate-set-parameters", announce_rounds=0)
    await qemu.begin_migration(cluster.lab, source, target)
    await target.qmp.event("RESUME")
    if say:
        running = GuestRunning(cluster=CLUSTER, vm=VM, node=node)
        await cluster.outside.publish(running.subject(), running.model_dump())
    pause = await qemu.end_migration(source, target)
    await cluster.outside.wait_for(VmMigrated, vm=VM, unless=VmFailed, node=node)
    return target, pause


async def move(journey: Journey, source: Machine, node: str, *, say: bool) -> Machine:
    """The same, with pings counted, and looked at afterwards as an operator would."""
    cluster, ready = journey.cluster, journey.ready
    address4, address6 = (address_of(ready, family) for family in (Family.IPV4, Family.IPV6))
    async with pinged(cluster.lab, "core", address4) as pings4, pinged(cluster.lab, "core", address6) as pings6:
        target, pause = await migrate(journey, source, node, say=say)
        await grown(journey.lives)
    print(
        f"\n{source.node} to {node}, {'said by its hypervisor' if say else 'heard by the node-agent'}: "
        f"IPv4 {pings4.lost} of {pings4.sent} lost, IPv6 {pings6.lost} of {pings6.sent}; "
        f"QEMU's downtime {pause.said * 1000:.0f} ms, from STOP to RESUME {pause.seen * 1000:.1f} ms"
    )
    allowed = (pause.seen + HANDOVER_SECONDS) / EVERY_SECONDS
    unanswered = [line for line in (*pings4.text, *pings6.text) if " bytes from " not in line]
    assert max(pings4.lost, pings6.lost) <= allowed, unanswered
    await cluster.reachable(ready)
    host = cluster.lab.topology.node(node)
    leads_to = bgp_routes(cluster.lab, "core")
    assert leads_to == {ip_network(address4): str(host.ipv4), ip_network(address6): str(host.ipv6)}
    return target


def ways(changes: list[str], address: str) -> list[str]:
    """Where the core's kernel has sent packets to this address, one after the other; all of a line that is no way."""
    lines = (line.split() for line in changes)
    found = (
        words[words.index("via") + 1] if words[0] == address else " ".join(words)
        for words in lines
        if address in words
    )
    return [way for way, _again in groupby(found)]


# The first run downloads the guest's kernel.
@pytest.mark.timeout(400)
async def test_a_real_guest_moves_there_and_back_and_hardly_a_packet_is_lost(
    cluster: Cluster, tmp_path: Path
) -> None:
    await cluster.apply(virtualization=Virtualization.KVM)
    image = await asyncio.to_thread(guest_image.make, tmp_path)
    async with left_to_qemu(cluster, VM), AsyncExitStack() as machines:
        await cluster.request(VM, node="n1", memory_mb=qemu.MEMORY_MB)
        ready = await cluster.ready(VM)
        given = await cluster.outside.wait_for(IfaceReady, vm=VM, node="n1")
        guest = await machines.enter_async_context(qemu.machine(cluster.lab, given, image))
        address = str(address_of(ready, Family.IPV4))
        assert await cluster.answers(address_of(ready, Family.IPV4), seconds=BOOT_SECONDS)
        connection = ("bash", "-c", f"exec cat </dev/tcp/{address}/{LIFE_PORT}")
        async with (
            printed(cluster.lab, *connection) as lives,
            printed(cluster.lab, "ip", "-oneline", "monitor", "route") as changes,
        ):
            await grown(lives)
            journey = Journey(cluster, ready, image, machines, lives)
            guest = await move(journey, guest, "n2", say=True)
            await move(journey, guest, "n1", say=False)
    boots, uptimes = zip(*(line.split() for line in lives), strict=True)
    assert len(set(boots)) == 1
    assert sorted(map(float, uptimes)) == [float(uptime) for uptime in uptimes]
    # FRR replaces an IPv4 route in one step. An IPv6 route it deletes and adds again, unless told otherwise.
    assert ways(changes, address) == [str(cluster.lab.topology.node(node).ipv4) for node in ("n2", "n1")]
