"""Guests with a real DHCP client, and the dnsmasq of a node."""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from vmfabric.contract.cluster import Virtualization
from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.node_agent.samples import a_routing_node, a_switching_node, a_vm

from .conftest import Node, run
from .test_dhcp import ROUTED, SWITCHED
from .test_spoofing import at

pytestmark = pytest.mark.lab

ELSEWHERE = "192.0.2.77"
"""An address behind the gateway."""

BOOTREPLY = 2

Inside = Callable[[str, Callable[[], Any]], Any]


def wants_dhcp(number: int, **given: Any) -> DesiredVm:
    return a_vm(number, dhcp=True, virtualization=Virtualization.LXD, **given)


def ask(guest: str, interface: str, directory: Path) -> None:
    """Run the guest's client until it has its address; it stays as a daemon, and is ended."""
    files = ("-lf", str(directory / f"{guest}.leases"), "-pf", str(directory / f"{guest}.pid"))
    try:
        run("ip", "netns", "exec", guest, "dhclient", "-1", "-v", *files, interface)
    finally:
        for pid in run("ip", "netns", "pids", guest).split():
            os.kill(int(pid), signal.SIGKILL)


def configured(guest: str) -> tuple[str, set[tuple[str, str | None]], int]:
    """Its IPv4 address with the broadcast address, its routes with their next hops, and its MTU."""
    [*_lo, link] = json.loads(run("ip", "-n", guest, "-j", "-4", "address"))
    routes = json.loads(run("ip", "-n", guest, "-j", "-4", "route"))
    [own] = link["addr_info"]
    address = f"{own['local']}/{own['prefixlen']} brd {own['broadcast']}"
    return address, {(route["dst"], route.get("gateway")) for route in routes}, link["mtu"]


def dnsmasq(node: Node) -> int | None:
    """The process that serves the node."""
    try:
        pid = int((node.directory / "node-agent.dnsmasq.pid").read_text())
        return pid if b"dnsmasq" in Path(f"/proc/{pid}/cmdline").read_bytes() else None
    except (FileNotFoundError, ValueError):
        return None


def files(node: Node) -> list[str]:
    return sorted(path.name for path in node.directory.glob("*dnsmasq*"))


@pytest.fixture(name="node")
def node_with_more_behind_it(node: Node) -> Iterator[Node]:
    node.resync_seconds = 0.2
    node.run("ip", "address", "add", f"{ELSEWHERE}/32", "dev", "lo")
    try:
        yield node
    finally:
        node.kill()
        if (pid := dnsmasq(node)) is not None:
            os.kill(pid, signal.SIGKILL)


def request(mac: str, source: str, kind: str = "discover", **options: str) -> bytes:
    return bytes(
        Ether(src=source, dst="ff:ff:ff:ff:ff:ff")
        / IP(src="0.0.0.0", dst="255.255.255.255")
        / UDP(sport=68, dport=67)
        / BOOTP(chaddr=bytes.fromhex(mac.replace(":", "")), flags=0x8000)
        / DHCP(options=[("message-type", kind), *options.items(), "end"])
    )


def waiting(port: socket.socket) -> Iterator[Ether]:
    """The frames that have come by a port."""
    port.setblocking(False)
    while True:
        try:
            yield Ether(port.recv(2048))
        except BlockingIOError:
            return


def answered(port: socket.socket) -> tuple[str, str]:
    """To which MAC address the next answer is, and which address it gives."""
    port.settimeout(3.0)
    while True:
        frame = Ether(port.recv(2048))
        if DHCP in frame and frame[BOOTP].op == BOOTREPLY:
            return frame[BOOTP].chaddr[:6].hex(":"), frame[BOOTP].yiaddr


def test_a_guest_gets_its_address_mask_route_and_mtu_by_dhcp_and_reaches_the_world(
    node: Node, inside: Inside, tmp_path: Path
) -> None:
    first, second = wants_dhcp(1, mtu=1400), wants_dhcp(2)
    node.want(first, second)
    node.start()
    node.until_wired(first, second)
    node.until(lambda: dnsmasq(node) is not None)
    guest = node.guest(first, configured=False)
    with inside(guest, at("vm1_eth0")) as port:
        # Requests keep their order: had one of the others been answered, that would be the first answer.
        for asks_for in ("02:00:00:00:00:63", second.mac, first.mac):
            port.send(request(asks_for, source=first.mac))
        assert answered(port) == (first.mac, "10.0.0.1")
    ask(guest, "vm1_eth0", tmp_path)
    routes = {("169.254.0.1", None), ("default", "169.254.0.1")}
    assert configured(guest) == ("10.0.0.1/32 brd 255.255.255.255", routes, 1400)
    for address in ("169.254.0.1", ELSEWHERE):
        run("ip", "netns", "exec", guest, "ping", "-c", "1", "-W", "2", address)


def test_dnsmasq_outlives_the_agent_comes_back_when_it_dies_and_goes_with_the_last_guest_that_wants_it(
    node: Node,
) -> None:
    vm = wants_dhcp(1)
    node.want(vm)
    node.start()
    node.until(lambda: dnsmasq(node) is not None)
    first = dnsmasq(node)
    node.restart_with(a_vm(2))
    node.until_wired(a_vm(2))
    assert dnsmasq(node) == first is not None

    os.kill(first, signal.SIGKILL)
    node.until(lambda: dnsmasq(node) is not None)

    node.restart_with(vm.model_copy(update={"presence": Presence.ABSENT}))
    node.until(lambda: dnsmasq(node) is None and not files(node))


def an_uplink(node: Node) -> None:
    """Without an address, and with the other end of the wire in the same namespace."""
    node.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "wire")
    for link in ("uplink", "wire"):
        node.run("ip", "link", "set", link, "up")


def test_guests_of_a_switching_node_get_addresses_of_their_networks_and_a_stranger_on_the_wire_gets_nothing(
    node: Node, inside: Inside, tmp_path: Path
) -> None:
    an_uplink(node)
    node.run("ip", "link", "add", "vmbr0", "up", "type", "bridge")
    node.run("ip", "link", "set", "uplink", "master", "vmbr0")
    node.run("ip", "address", "add", "192.0.2.1/24", "dev", "vmbr0")
    node.want_node(a_switching_node(uplink=None))
    node.want(*SWITCHED)
    node.start()
    node.until(lambda: dnsmasq(node) is not None)
    stranger = "02:00:00:00:00:63"
    with inside(node.namespace, at("wire")) as port:
        # Had it been answered itself, that would be the first answer.
        port.send(request(stranger, stranger))
        port.send(request(stranger, stranger, "request", requested_addr="203.0.113.9"))
        port.send(request(SWITCHED[0].mac, stranger))
        assert answered(port) == (SWITCHED[0].mac, "192.0.2.21")
    first, second, third = (node.guest(vm, configured=False) for vm in SWITCHED)
    with inside(second, at("vm2_eth0")) as port:
        refuse = {"server_id": "192.0.2.1", "requested_addr": "192.0.2.21"}
        port.send(request(SWITCHED[0].mac, SWITCHED[1].mac, "decline", **refuse))
        for asks_for in (SWITCHED[0].mac, SWITCHED[1].mac):
            port.send(request(asks_for, source=SWITCHED[1].mac))
        assert answered(port) == (SWITCHED[1].mac, "198.51.100.22")
    for number, guest in enumerate((first, second, third), 1):
        ask(guest, f"vm{number}_eth0", tmp_path)
    routes = {("192.0.2.0/24", None), ("default", "192.0.2.254")}
    assert configured(first) == ("192.0.2.21/24 brd 192.0.2.255", routes, 1500)
    local = ("198.51.100.0/25", None)
    assert configured(second) == ("198.51.100.22/25 brd 198.51.100.127", {local, ("default", "198.51.100.1")}, 1500)
    assert configured(third) == ("198.51.100.23/25 brd 198.51.100.127", {local}, 1500)


def test_a_guest_of_a_routing_node_gets_its_address_and_the_node_as_its_gateway_and_a_provider_cannot_ask_for_it(
    node: Node, inside: Inside, tmp_path: Path
) -> None:
    an_uplink(node)
    node.run("ip", "address", "add", "192.0.2.1/24", "dev", "uplink")
    node.want_node(a_routing_node())
    node.want(ROUTED[0])
    node.start()
    node.until(lambda: dnsmasq(node) is not None)
    guest = node.guest(ROUTED[0], configured=False)
    stranger = "02:00:00:00:00:63"
    with inside(node.namespace, at("wire")) as port:
        port.send(request(ROUTED[0].mac, stranger))
        # Requests keep their order: the stranger would have been answered before the guest is.
        ask(guest, "vm1_eth0", tmp_path)
        assert not any(DHCP in frame and frame[BOOTP].op == BOOTREPLY for frame in waiting(port))
    routes = {("192.0.2.1", None), ("default", "192.0.2.1")}
    assert configured(guest) == ("10.0.0.1/32 brd 255.255.255.255", routes, 1500)
    for address in ("192.0.2.1", ELSEWHERE):
        run("ip", "netns", "exec", guest, "ping", "-c", "1", "-W", "2", address)
