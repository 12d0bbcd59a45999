"""A switched guest that has come is announced to the physical network."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from pyroute2 import netns
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether

from vmfabric.contract.addresses import parse_host
from vmfabric.contract.desired import Presence, Switched
from vmfabric.node_agent.domain.neighbour import Question, announcement
from vmfabric.node_agent.kernel import announcing
from vmfabric.node_agent.kernel.announcing import Announcing
from vmfabric.node_agent.samples import a_vm

from .conftest import run

MAC = "02:00:00:00:00:01"
SWITCHED = Switched(bridge="vmbr0")


def test_an_announcement_is_what_scapy_makes_of_it() -> None:
    arp = Ether(announcement(parse_host("10.0.0.1"), MAC))
    assert (arp.src, arp.dst, arp[ARP].psrc, arp[ARP].pdst, arp[ARP].hwsrc) == (
        *(MAC, "ff:ff:ff:ff:ff:ff"),
        *("10.0.0.1", "10.0.0.1", MAC),
    )
    frame = announcement(parse_host("2001:db8::1"), MAC)
    advertised = Ether(frame)
    assert (advertised.src, advertised.dst, advertised[IPv6].hlim) == (MAC, "33:33:00:00:00:01", 255)
    assert (advertised[ICMPv6ND_NA].tgt, advertised[ICMPv6ND_NA].O) == ("2001:db8::1", 1)
    del advertised[ICMPv6ND_NA].cksum
    assert bytes(advertised) == frame, "scapy works out the same checksum"


def test_a_question_is_answered_by_the_neighbour_and_by_nobody_else() -> None:
    asked = Question(parse_host("10.0.0.9"), parse_host("10.0.0.1"))
    assert Ether(asked.frame(MAC))[ARP].pdst == "10.0.0.9"
    assert asked.is_answered_by(bytes(Ether() / ARP(op=2, psrc="10.0.0.9")))
    assert not asked.is_answered_by(bytes(Ether() / ARP(op=2, psrc="10.0.0.8")))
    assert not asked.is_answered_by(bytes(Ether() / ARP(op=1, psrc="10.0.0.9")))
    assert not asked.is_answered_by(b"")
    asked = Question(parse_host("2001:db8::9"), parse_host("fe80::1"))
    frame = asked.frame(MAC)
    solicited = Ether(frame)
    assert (solicited.dst, solicited[IPv6].dst) == ("33:33:ff:00:00:09", "ff02::1:ff00:9")
    del solicited[ICMPv6ND_NS].cksum
    assert bytes(solicited) == frame
    assert asked.is_answered_by(bytes(Ether() / IPv6(src="2001:db8::9") / ICMPv6ND_NA(tgt="2001:db8::9")))
    assert not asked.is_answered_by(bytes(Ether() / IPv6(src="2001:db8::9") / ICMPv6ND_NA(tgt="2001:db8::8")))


@pytest.mark.lab
@pytest.mark.parametrize(
    ("prepared", "steps", "times"),
    [
        ([], (Presence.PREPARED, Presence.PREFERRED), 3),
        ([], (Presence.PREPARED, Presence.ROUTED), 3),
        ([], (Presence.PREPARED, Presence.WIRED), 0),
        ([], (Presence.WIRED, Presence.ROUTED), 0),
        ([], (Presence.ROUTED, Presence.ROUTED), 0),
        (["vm1"], (Presence.ROUTED,), 3),
        (["vm1"], (Presence.PREPARED, Presence.ROUTED), 3),
        (["vm1"], (Presence.WIRED, Presence.ROUTED), 0),
        (["vm2"], (Presence.ROUTED,), 0),
    ],
)
async def test_a_guest_that_has_come_is_announced_out_of_the_uplink(
    node: Any,
    inside: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    *,
    prepared: list[str],
    steps: tuple[Presence, ...],
    times: int,
) -> None:
    monkeypatch.setattr(announcing, "_PAUSES", (0.0, 0.01, 0.01))
    for command in (
        "link add uplink type veth peer name switch",
        "link add vmbr0 type bridge",
        "link set uplink master vmbr0",
        "link set switch up",
        "link set uplink up",
        "link set vmbr0 up",
    ):
        run("ip", "-n", node.namespace, *command.split())

    def listen() -> socket.socket:
        heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(3))
        heard.bind(("switch", 3))
        return heard

    def tell() -> None:
        async def work() -> None:
            async with asyncio.TaskGroup() as tasks:
                told = Announcing(tasks, prepared=frozenset(prepared))
                for presence in (*steps, steps[-1]):
                    told.notice([a_vm(1, wiring=SWITCHED, presence=presence)], ())

        netns.setns(node.namespace)
        asyncio.run(work())

    with inside(node.namespace, listen) as heard:
        await asyncio.to_thread(lambda: inside(node.namespace, tell))
        frames = []
        while True:
            try:
                frames.append(heard.recv(2048))
            except BlockingIOError:
                break
    said = [Ether(frame) for frame in frames if frame[6:12] == bytes.fromhex(MAC.replace(":", ""))]
    assert sum(ARP in it for it in said) == times
    assert sum(ICMPv6ND_NA in it for it in said) == times
