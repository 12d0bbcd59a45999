"""The agent hears a guest that has come by what the guest itself sends."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from pyroute2 import netns
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether

from vmfabric.contract.desired import Presence
from vmfabric.contract.envelope import Trace
from vmfabric.contract.errors import Code, TryAgain
from vmfabric.contract.guest import GuestRunning
from vmfabric.contract.model import Event
from vmfabric.node_agent.domain.announcement import is_announcement
from vmfabric.node_agent.kernel.arrivals import Arrivals
from vmfabric.node_agent.samples import a_vm

from .conftest import run

NAMESPACE = f"vmf-arrivals-{os.getpid()}"
ETH_P_ALL = 0x0003
OWN, OTHER, ALL = "02:00:00:00:00:01", "02:00:00:00:00:02", "ff:ff:ff:ff:ff:ff"

GRATUITOUS_ARP = bytes(Ether(src=OWN, dst=ALL) / ARP(op=1, hwsrc=OWN, psrc="10.0.0.1", pdst="10.0.0.1"))
QEMU_RARP = bytes(Ether(src=OWN, dst=ALL, type=0x8035) / ARP(op=3, hwsrc=OWN, hwdst=OWN))
NEIGHBOUR_ADVERTISEMENT = bytes(
    Ether(src=OWN, dst="33:33:00:00:00:01") / IPv6(src="fe80::1", dst="ff02::1") / ICMPv6ND_NA(tgt="2001:db8::1")
)


@pytest.mark.parametrize("frame", [GRATUITOUS_ARP, QEMU_RARP, NEIGHBOUR_ADVERTISEMENT])
def test_a_guest_announces_itself(frame: bytes) -> None:
    assert is_announcement(frame, OWN)
    assert not is_announcement(frame, OTHER), "that is another guest"
    assert not is_announcement(frame[:12], OWN)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes(Ether(src=OWN, dst=ALL) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP()),
        bytes(Ether(src=OWN, dst=ALL) / IPv6(src="fe80::1", dst="fe80::2") / ICMPv6ND_NS(tgt="fe80::2")),
        bytes(Ether(src=OWN, dst=ALL, type=0x86DD)),
    ],
)
def test_anything_else_is_no_announcement(frame: bytes) -> None:
    assert not is_announcement(frame, OWN)


@dataclass
class Published:
    refusals: int = 0
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)

    async def publish(self, event: Event, trace: Trace) -> None:  # noqa: ARG002  # a Publisher's signature
        if self.refusals:
            self.refusals -= 1
            raise TryAgain(Code.INTERNAL, "there is no connection")
        self.events.put_nowait(event)

    async def said(self) -> Event:
        async with asyncio.timeout(5):
            return await self.events.get()


@pytest.fixture
async def guest() -> AsyncIterator[socket.socket]:
    """The guest's end of the port of vm1; this thread is in the namespace of the port meanwhile."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    run("ip", "netns", "add", NAMESPACE)
    netns.setns(NAMESPACE)
    try:
        run("ip", "link", "add", "vm1_net0", "type", "veth", "peer", "vm1_eth0")
        run("ip", "link", "set", "vm1_net0", "up")
        run("ip", "link", "set", "vm1_eth0", "up")
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("vm1_eth0", 0))
            yield sender
    finally:
        netns.setns(f"/proc/self/fd/{own}")
        os.close(own)
        run("ip", "netns", "delete", NAMESPACE)


@pytest.mark.lab
async def test_a_guest_that_comes_is_said_to_run(guest: socket.socket) -> None:
    published = Published(refusals=1)
    arrivals = Arrivals(published)
    running = asyncio.create_task(arrivals.run())
    wired = a_vm(1, presence=Presence.PREPARED)
    arrivals.expect([a_vm(2, presence=Presence.PREPARED), wired])
    guest.send(GRATUITOUS_ARP.replace(bytes.fromhex("020000000001"), bytes.fromhex("020000000002")))
    guest.send(GRATUITOUS_ARP)
    said = await published.said()
    assert said == GuestRunning(cluster=wired.cluster, vm=wired.vm, node=wired.node, generation=wired.generation)
    arrivals.expect([wired])
    guest.send(GRATUITOUS_ARP)
    await nothing_is_said(published)
    running.cancel()
    await asyncio.wait({running})


@pytest.mark.lab
@pytest.mark.parametrize("presences", [[Presence.ROUTED], [Presence.ROUTED, Presence.WIRED], [Presence.ABSENT]])
async def test_nobody_listens_to_a_guest_that_is_not_awaited(guest: socket.socket, presences: list[Presence]) -> None:
    published = Published()
    arrivals = Arrivals(published)
    running = asyncio.create_task(arrivals.run())
    for presence in presences:
        arrivals.expect([a_vm(1, presence=presence)])
    guest.send(GRATUITOUS_ARP)
    await nothing_is_said(published)
    arrivals.expect([a_vm(1, generation=2, presence=Presence.PREPARED)])
    guest.send(QEMU_RARP)
    assert isinstance(await published.said(), GuestRunning)
    running.cancel()
    await asyncio.wait({running})


@pytest.mark.lab
async def test_a_guest_is_not_taken_for_come_by_what_its_source_sends_over_the_physical_network(
    guest: socket.socket,
) -> None:
    for command in (
        "link add vmbr0 type bridge",
        "link add eno1 type veth peer switch",
        "link set eno1 master vmbr0 up",
        "link set vm1_net0 master vmbr0",
        "link set switch up",
        "link set vmbr0 up",
    ):
        run("ip", *command.split())
    published = Published()
    arrivals = Arrivals(published)
    running = asyncio.create_task(arrivals.run())
    arrivals.expect([a_vm(1, presence=Presence.PREPARED)])
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as source,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK) as target,
    ):
        source.bind(("switch", 0))
        target.bind(("vm1_eth0", ETH_P_ALL))
        async with asyncio.timeout(5):
            while not has_come(target, GRATUITOUS_ARP):
                source.send(GRATUITOUS_ARP)
                await asyncio.sleep(0.01)
    await nothing_is_said(published)
    guest.send(GRATUITOUS_ARP)
    assert isinstance(await published.said(), GuestRunning)
    running.cancel()
    await asyncio.wait({running})


def has_come(port: socket.socket, frame: bytes) -> bool:
    """Whether it is among those that wait to be read."""
    frames = []
    while True:
        try:
            frames.append(port.recv(2048))
        except BlockingIOError:
            return frame in frames


async def nothing_is_said(published: Published) -> None:
    """Whatever was sent before has been looked at when the loop has been round a few times."""
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert published.events.empty()
