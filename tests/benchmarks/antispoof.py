"""What the rules at a guest's port cost, and whether its limits hold: a guest, its port and a switch behind it."""

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from vmfabric.contract.bandwidth import Bandwidth
from vmfabric.lab.programs import run
from vmfabric.lab.throughput import inside, tcp_kbit, udp_kbit
from vmfabric.node_agent.domain.antispoof import Guard
from vmfabric.node_agent.domain.operations import LoadGuard, LoadTable
from vmfabric.node_agent.kernel.nft_text import render

NODE, GUEST, SWITCH = (f"vmf-bench-{os.getpid()}-{name}" for name in ("node", "guest", "switch"))
VMS = (1, 500)
LIMITS = (5_000, 50_000)
_ROUNDS = 5
_SECONDS = 0.4
_OWN, _ROUTER = bytes.fromhex("020000000001"), bytes.fromhex("0200000000fe")
_FRAMES = {
    "IPv4": _ROUTER
    + _OWN
    + bytes.fromhex("0800 4500002000010000401166ca 0a000001 0a000002 00090009000c0000")
    + bytes(18),
    "IPv6": _ROUTER
    + _OWN
    + bytes.fromhex("86dd 60000000000c1140")
    + IPv6Address("2001:db8::1").packed
    + IPv6Address("2001:db8::2").packed
    + bytes.fromhex("00090009000c0000 00000000"),
}


def _guard(number: int, bandwidth: Bandwidth | None = None) -> LoadGuard:
    guard = Guard(
        interface=f"vnet{number}",
        mac=f"02:00:00:00:{number // 256:02x}:{number % 256:02x}",
        ipv4=frozenset({IPv4Address("10.0.0.0") + number}),
        ipv6=frozenset({IPv6Address("2001:db8::") + number}),
        delegated=frozenset(),
        on_segment=True,
        asks_node=True,
        bandwidth=bandwidth,
    )
    return LoadGuard(f"vm{number}", guard.interface, guard, None)


def _load(guards: Sequence[LoadGuard]) -> None:
    """These and no others."""
    run("ip", "netns", "exec", NODE, "nft", "flush", "ruleset")
    if guards:
        run("ip", "netns", "exec", NODE, "nft", "-f", "-", stdin=render([LoadTable(), *guards]))


@contextmanager
def _wired() -> Iterator[None]:
    for name in (NODE, GUEST, SWITCH):
        run("ip", "netns", "add", name)
    try:
        links = ["link add vmbr0 type bridge"]
        for port, namespace, mac in (("vnet1", GUEST, "02:00:00:00:00:01"), ("trunk", SWITCH, "02:00:00:00:00:02")):
            links.append(f"link add {port} type veth peer name eth0 address {mac} netns {namespace}")
        links += [f"tuntap add dev vnet{number} mode tap" for number in range(2, max(VMS) + 1)]
        links += [f"link set {port} master vmbr0 up" for port in ("vnet1", "trunk")]
        run("ip", "-n", NODE, "-batch", "-", stdin="\n".join([*links, "link set vmbr0 up"]))
        for namespace, address in ((GUEST, "10.0.0.1/24"), (SWITCH, "10.0.0.2/24")):
            run("ip", "-n", namespace, "address", "add", address, "dev", "eth0")
            run("ip", "-n", namespace, "link", "set", "eth0", "up")
        yield
    finally:
        for name in (NODE, GUEST, SWITCH):
            run("ip", "netns", "del", name)


@dataclass(frozen=True)
class Figures:
    """Of one run."""

    frames: dict[tuple[str, int], float]
    """A second of the CPU, by the kind of frame and the number of VMs whose rules are loaded."""
    kbit: dict[tuple[str, int], float]
    """By what was sent and the limit."""


def measured() -> Figures:
    """Takes half a minute."""
    with _wired():
        return Figures(_frames(), dict(_kbit()))


def _frames() -> dict[tuple[str, int], float]:
    best: dict[tuple[str, int], float] = {}
    with inside(GUEST, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as sender:
        sender.bind(("eth0", 0))
        for _ in range(_ROUNDS):
            for vms in (0, *VMS):
                _load([_guard(number) for number in range(1, vms + 1)])
                for kind, frame in _FRAMES.items():
                    best[kind, vms] = max(best.get((kind, vms), 0.0), _rate(sender, frame))
    return best


def _rate(sender: socket.socket, frame: bytes) -> float:
    """In a second of the CPU: the port's rules run in the thread that sends, and others may want the machine too."""
    sent, start, end = 0, time.thread_time(), time.monotonic() + _SECONDS
    while time.monotonic() < end:
        for _ in range(500):
            sender.send(frame)
        sent += 500
    return sent / (time.thread_time() - start)


def _kbit() -> Iterator[tuple[tuple[str, int], float]]:
    for limit in LIMITS:
        _load([_guard(1, Bandwidth(in_kbit=limit, out_kbit=limit * 20))])
        yield ("TCP to the VM", limit), tcp_kbit(SWITCH, GUEST, "10.0.0.1", after=2.0, seconds=3.0)
        yield ("UDP to the VM", limit), udp_kbit(SWITCH, GUEST, "10.0.0.1", after=2.0, seconds=2.0)
        _load([_guard(1, Bandwidth(in_kbit=limit * 20, out_kbit=limit))])
        yield ("TCP from the VM", limit), tcp_kbit(GUEST, SWITCH, "10.0.0.2", after=2.0, seconds=3.0)
        yield ("UDP from the VM", limit), udp_kbit(GUEST, SWITCH, "10.0.0.2", after=2.0, seconds=2.0)


def table(found: Figures) -> str:
    """For a person."""
    lines = [
        "frames that a guest gets through its port in a second of the CPU, the best of some rounds, beside no rules"
    ]
    for vms in (0, *VMS):
        of = {kind: (found.frames[kind, vms], found.frames[kind, vms] / found.frames[kind, 0]) for kind in _FRAMES}
        cells = "   ".join(f"{kind} {rate:9,.0f} ({ratio:4.0%})" for kind, (rate, ratio) in of.items())
        lines.append(f"  rules of {vms:3} VMs   {cells}")
    lines.append("payload beside the limit")
    for (what, limit), kbit in found.kbit.items():
        lines.append(f"  {what:16} {limit / 1000:3.0f} Mbit/s   {kbit / 1000:6.2f} Mbit/s ({kbit / limit:4.0%})")
    return "\n".join(lines)
