"""Programs of Debian's with which a real guest configures its network, as cloud-init and netplan have told them."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from vmfabric.lab import debian
from vmfabric.lab.guest_image import DIRECTORY, LINK, PROGRAM, Entry
from vmfabric.lab.programs import run

_IFUPDOWN = {"ifup": "sbin/ifup", "settle-dad.sh": "settle-dad.sh", "wait-for-ll6.sh": "wait-for-ll6.sh"}
_BUSYBOX = ("cat", "grep", "run-parts", "seq", "sleep", "wc")
"""What ifupdown and its scripts run, besides ip and sh. Busybox's own sh would run its own ip and ifup."""

_NETWORKD = "lib/systemd/systemd-networkd"
_USERS = b"root:x:0:0::/:/bin/sh\nsystemd-network:x:998:998::/:/bin/sh\n"


def ifupdown(interfaces: str) -> Iterator[Entry]:
    """For the guest's image, with this `/etc/network/interfaces`. What is not ifupdown's own is the machine's."""
    package = debian.once_updated(lambda: debian.files("ifupdown", _IFUPDOWN))
    return _with_parents(
        *((f"bin/{applet}", LINK, b"busybox") for applet in _BUSYBOX),
        *_program("bin/sh", Path("/bin/dash")),
        *_program("sbin/ip", Path("/bin/ip")),
        *_program("sbin/ifup", package / "ifup"),
        *((f"lib/ifupdown/{file}", PROGRAM, (package / file).read_bytes()) for file in _IFUPDOWN if file != "ifup"),
        *((f"etc/network/{hooks}", DIRECTORY, b"") for hooks in ("if-pre-up.d", "if-up.d")),
        ("etc/network/interfaces", PROGRAM, interfaces.encode()),
        ("run/network", DIRECTORY, b""),
        ("network", PROGRAM, b"#!/bin/sh\nPATH=/sbin:/bin exec ifup -a\n"),
    )


def networkd(network: str) -> Iterator[Entry]:
    """For the guest's image, with the machine's systemd-networkd and this file for it."""
    return _with_parents(
        *_program(_NETWORKD, Path("/") / _NETWORKD),
        ("etc/passwd", PROGRAM, _USERS),
        ("etc/systemd/network/eth0.network", PROGRAM, network.encode()),
        ("run", DIRECTORY, b""),
        # With a /sys that it may write to, it would wait for udev.
        (
            "network",
            PROGRAM,
            f"#!/bin/busybox sh\n/bin/busybox mount -o remount,ro /sys\nexec /{_NETWORKD}\n".encode(),
        ),
    )


def _program(name: str, path: Path) -> Iterator[Entry]:
    """A program, and the machine's libraries that it is linked with."""
    yield name, PROGRAM, path.read_bytes()
    for library in re.findall(r"(/\S+) \(0x", run("ldd", str(path))):
        yield library.lstrip("/"), PROGRAM, Path(library).read_bytes()


def _with_parents(*entries: Entry) -> Iterator[Entry]:
    parents = {str(parent): None for name, _, _ in entries for parent in reversed(PurePosixPath(name).parents[:-1])}
    yield from ((parent, DIRECTORY, b"") for parent in parents)
    # Programs share libraries.
    yield from dict.fromkeys(entries)
