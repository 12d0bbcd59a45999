"""What a guest that pretends to be somebody else gets through."""

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6ND_Redirect, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from vmfabric.contract.cluster import Virtualization
from vmfabric.node_agent.samples import a_vm

pytestmark = pytest.mark.lab

GATEWAY = "02:00:5e:00:00:01"
OWN = "02:00:00:00:00:01"
OTHER = "02:00:00:00:00:02"
MARK = b"vmfabric-test-frame"


def frame(layers: Packet, *, source: str = OWN, destination: str = GATEWAY) -> bytes:
    return bytes(Ether(src=source, dst=destination) / layers)


def ipv4(source: str = "10.0.0.1") -> Packet:
    return IP(src=source, dst="10.0.0.2") / UDP(sport=9, dport=9) / Raw(MARK)


def ipv6(source: str = "2001:db8::1") -> Packet:
    return IPv6(src=source, dst="2001:db8::2") / UDP(sport=9, dport=9) / Raw(MARK)


HONEST: dict[str, bytes] = {"IPv4": frame(ipv4()), "IPv6": frame(ipv6())}

DISHONEST: dict[str, tuple[bytes, str]] = {
    "MAC of another": (frame(ipv4(), source=OTHER), "dropped_mac"),
    "MAC of the gateway": (frame(ipv4(), source=GATEWAY), "dropped_mac"),
    "IPv4 of another": (frame(ipv4("10.0.0.3")), "dropped_ipv4"),
    "IPv4 of the gateway": (frame(ipv4("169.254.0.1")), "dropped_ipv4"),
    "IPv6 of another": (frame(ipv6("2001:db8::3")), "dropped_ipv6"),
    "IPv6 link-local for data": (frame(ipv6("fe80::2")), "dropped_ipv6"),
    "ARP for another's address": (
        frame(ARP(op=2, hwsrc=OWN, psrc="10.0.0.2", hwdst=GATEWAY, pdst="169.254.0.1")),
        "dropped_arp",
    ),
    "ARP with another's MAC": (
        frame(ARP(op=2, hwsrc=OTHER, psrc="10.0.0.1", hwdst=GATEWAY, pdst="169.254.0.1")),
        "dropped_arp",
    ),
    "neighbour discovery from another's address": (
        frame(IPv6(src="2001:db8::2", dst="fe80::1") / ICMPv6ND_NS(tgt="fe80::1")),
        "dropped_ipv6",
    ),
    "router advertisement": (
        frame(IPv6(src="fe80::2", dst="ff02::1") / ICMPv6ND_RA(), destination="33:33:00:00:00:01"),
        "dropped_router",
    ),
    "redirect": (frame(IPv6(src="fe80::2", dst="fe80::1") / ICMPv6ND_Redirect()), "dropped_redirect"),
    "IPv4 redirect": (
        frame(IP(src="10.0.0.1", dst="169.254.0.1") / ICMP(type=5, code=1) / Raw(bytes(28))),
        "dropped_redirect",
    ),
    "DHCP server": (
        frame(
            IP(src="10.0.0.1", dst="255.255.255.255")
            / UDP(sport=67, dport=68)
            / BOOTP(op=2)
            / DHCP(options=[("message-type", "offer"), "end"]),
            destination="ff:ff:ff:ff:ff:ff",
        ),
        "dropped_dhcp_server",
    ),
    "DHCPv6 server": (
        frame(IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=547, dport=546) / Raw(MARK)),
        "dropped_dhcp_server",
    ),
    "unknown protocol": (bytes(Ether(src=OWN, dst=GATEWAY, type=0x88CC) / Raw(MARK)), "dropped_other"),
}


@pytest.fixture
def guests(node: Any) -> tuple[str, str]:
    vms = [a_vm(number, virtualization=Virtualization.LXD) for number in (1, 2)]
    node.want(*vms)
    node.start()
    node.until_wired(*vms)
    first, second = (node.guest(vm) for vm in vms)
    for address in ("10.0.0.2", "2001:db8::2"):
        ping = ("ip", "netns", "exec", first, "ping", "-c", "1", "-W", "1", address)
        node.until(lambda command=ping: " 0% packet loss" in node.run(*command, check=False))
    return first, second


Inside = Callable[[str, Callable[[], socket.socket]], socket.socket]


def a_port(interface: str) -> Callable[[], socket.socket]:
    def open_it() -> socket.socket:
        port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        port.bind((interface, 0x0003))
        return port

    return open_it


def arrives(port: socket.socket, seconds: float) -> bool:
    """Whether a marked frame comes in time."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        port.settimeout(left)
        try:
            if MARK in port.recv(2048):
                return True
        except TimeoutError:
            return False
    return False


@pytest.mark.parametrize("case", HONEST)
def test_an_honest_frame_gets_through(node: Any, guests: tuple[str, str], inside: Inside, case: str) -> None:
    first, second = guests
    with inside(first, a_port("vm1_eth0")) as sender, inside(second, a_port("vm2_eth0")) as receiver:
        sender.send(HONEST[case])
        assert arrives(receiver, 3.0)
    assert not any(count for name, count in node.counters().items() if name in {"dropped_mac", "dropped_ipv4"})


def test_what_is_not_the_guests_own_does_not_get_through(
    node: Any, guests: tuple[str, str], inside: Inside, subtests: pytest.Subtests
) -> None:
    first, second = guests
    with inside(first, a_port("vm1_eth0")) as sender, inside(second, a_port("vm2_eth0")) as receiver:
        for case, (dishonest, counter) in DISHONEST.items():
            with subtests.test(case):
                before = node.counters()[counter]
                sender.send(dishonest)
                node.until(lambda counter=counter, before=before: node.counters()[counter] == before + 1)
        # Frames keep their order: had one of them got through, it would stand before the honest one.
        sender.send(frame(ipv4() / Raw(b"-the-last")))
        marked: list[bytes] = []
        while not marked or b"-the-last" not in marked[-1]:
            receiver.settimeout(3.0)
            got = receiver.recv(2048)
            if MARK in got:
                marked.append(got)
        assert len(marked) == 1
