"""Guests: a namespace each, with one interface configured as the event says."""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from vmfabric.contract.iface import IfaceReady
from vmfabric.contract.vm import VmMigrating
from vmfabric.lab import namespaces
from vmfabric.lab.programs import run
from vmfabric.lab.services import HYPERVISOR
from vmfabric.lab.state import State
from vmfabric.lab.topology import Topology

INTERFACE = "eth0"
"""The guest's only interface."""

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_IFREQ = struct.Struct("16sH22x")

_SYSCTLS = {
    # The event says what the guest has: nothing comes from advertisements, and nobody waits for duplicates.
    "net.ipv6.conf.default.accept_ra": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    # What a network card that was told of a migration does: see announce.
    "net.ipv4.conf.default.arp_notify": "1",
    "net.ipv6.conf.default.ndisc_notify": "1",
}


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest that was started on a node."""

    cluster: str
    vm: str
    node: str
    prefix: str
    """The namespace of its node."""

    @property
    def name(self) -> str:
        """Tells it from the other guests of its node. No name of the contract has a dot."""
        return f"{self.cluster}.{self.vm}"

    @property
    def namespace(self) -> str:
        """Its network namespace."""
        return f"{self.prefix}.{self.name}"


class Move(BaseModel):
    """The last migration of a guest that this node had a part in."""

    event: VmMigrating
    released: bool = False
    """Whether the source has let go of it."""


class Records:
    """What each guest of a node was given, one file each. A file is there as long as its namespace may be. Beside it,
    the guest's last migration, which outlives the guest: what is said late of the time before is known by it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def all(self) -> Iterator[IfaceReady]:
        """What was given to every guest."""
        for path in sorted(self._directory.glob("*.json")):
            with suppress(FileNotFoundError):  # its hypervisor has removed it meanwhile
                yield IfaceReady.model_validate_json(path.read_bytes())

    def get(self, guest: Guest) -> IfaceReady | None:
        """What this guest was given, or None when there is no such guest."""
        try:
            return IfaceReady.model_validate_json(self._path(guest).read_bytes())
        except FileNotFoundError:
            return None

    def put(self, guest: Guest, given: IfaceReady) -> None:
        """Before anything of the guest is made."""
        self._directory.mkdir(parents=True, exist_ok=True)
        draft = self._path(guest).with_suffix(".new")
        draft.write_text(given.model_dump_json())
        draft.rename(self._path(guest))

    def move(self, guest: Guest) -> Move | None:
        """The last migration of this guest."""
        try:
            return Move.model_validate_json(self._move_path(guest).read_bytes())
        except FileNotFoundError:
            return None

    def put_move(self, guest: Guest, move: Move) -> None:
        """Remember it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        draft = self._move_path(guest).with_suffix(".draft")
        draft.write_text(move.model_dump_json())
        draft.rename(self._move_path(guest))

    def remove(self, guest: Guest) -> None:
        """After everything of the guest is gone."""
        self._path(guest).unlink(missing_ok=True)

    def _move_path(self, guest: Guest) -> Path:
        return self._directory / f"{guest.name}.move"

    def _path(self, guest: Guest) -> Path:
        return self._directory / f"{guest.name}.json"


def records_of(directory: Path) -> Records:
    """The records in the directory of a hypervisor."""
    return Records(directory / "guests")


def recorded(state: State, topology: Topology) -> list[Guest]:
    """Every guest of the lab."""
    return [
        Guest(given.cluster, given.vm, node.name, topology.namespace(node.name))
        for node in topology.all_nodes
        for given in records_of(state.of_service(node.name, HYPERVISOR)).all()
    ]


def create(guest: Guest) -> None:
    """Make the guest's namespace, if it is not there."""
    if not namespaces.exists(guest.namespace):
        namespaces.create(guest.namespace)
        namespaces.set_sysctls(guest.namespace, _SYSCTLS)


def remove(guest: Guest) -> None:
    """End everything in the guest, and remove its namespace with the interface in it."""
    namespaces.remove([guest.namespace])


def has_interface(guest: Guest) -> bool:
    """Whether the guest is there and has its interface."""
    if not namespaces.exists(guest.namespace):
        return False
    return INTERFACE in run("ip", "-n", guest.namespace, "-brief", "link", "show")


def unplug(guest: Guest) -> None:
    """The guest hears and says nothing any more."""
    if has_interface(guest):
        run("ip", "-n", guest.namespace, "link", "set", INTERFACE, "down")


def plug_in(guest: Guest, interface: str) -> None:
    """Move an interface of the node into the guest."""
    run("ip", "link", "set", interface, "netns", guest.namespace, "name", INTERFACE)


def configure(guest: Guest, given: IfaceReady) -> None:
    """Set MAC address, MTU, addresses and routes. The same again changes nothing."""
    lines = [f"link set {INTERFACE} address {given.guest.mac} mtu {given.guest.mtu} up"]
    for address in given.guest.addresses:
        ipv4 = address.prefix.version == 4
        lines.append(f"address replace {address.prefix} dev {INTERFACE}" + ("" if ipv4 else " nodad"))
        if address.gateway is not None:
            # Spelled out: ip-route(8) takes `default` without a family for IPv4.
            everything = "0.0.0.0/0" if ipv4 else "::/0"
            onlink = " onlink" if address.is_gateway_outside else ""
            lines.append(f"route replace {everything} via {address.gateway} dev {INTERFACE}{onlink}")
    run("ip", "-n", guest.namespace, "-batch", "-", stdin="\n".join(lines) + "\n")


def announce(guest: Guest, given: IfaceReady) -> None:
    """Have the guest tell everybody on its link where it is, by gratuitous ARP and unsolicited NA (RFC 4861, 7.2.6).

    The kernel sends them when it is given a MAC address, the same one too.
    """
    run("ip", "-n", guest.namespace, "link", "set", INTERFACE, "address", given.guest.mac)


def open_tap(name: str) -> tuple[int, str]:
    """Take hold of a TAP of this network namespace, or make one when `name` has a %d in it.

    Gives the descriptor, non-blocking, one frame to a read, and the interface's name. OSError when somebody holds it.
    """
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TAP | _IFF_NO_PI))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, _IFREQ.unpack(answer)[0].rstrip(b"\0").decode()
