"""What a real guest boots from: Debian's kernel, and an initramfs with nothing in it but busybox and our `init`.

The machine's own kernel and initramfs stay.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from itertools import chain
from pathlib import Path

from vmfabric.lab import debian
from vmfabric.lab.errors import LabError
from vmfabric.lab.programs import run

_KERNEL = "linux-image-cloud-amd64"
"""Debian's smallest kernel: a package that depends on the newest one."""
_BUSYBOX = "busybox-static"

_MODULES = (
    # In this order, since each needs those before it.
    "failover",
    "net_failover",
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_net",
)
_KERNEL_FILES = {"vmlinuz": "vmlinuz-*", **{f"{module}.ko": f"{module}.ko" for module in _MODULES}}
_BUSYBOX_FILES = {"busybox": "bin/busybox"}

DIRECTORY, PROGRAM, LINK = 0o040755, 0o100755, 0o120777
"""Modes of what is in an initramfs."""

Entry = tuple[str, int, bytes]
"""Path without the first slash, mode and content of a file; directories come before what is in them."""


@dataclass(frozen=True, slots=True)
class Image:
    """Two files that QEMU boots."""

    kernel: Path
    initramfs: Path


def make(directory: Path, more: Iterable[Entry] = ()) -> Image:
    """The image; its initramfs is written into this directory. `more` is in it too; a program `network` of these
    configures the guest's network. LabError when something of it cannot be had.
    """
    kernel, busybox = debian.once_updated(lambda: (_kernel(), _busybox()))
    initramfs = directory / "initramfs"
    initramfs.write_bytes(b"".join(_archive(chain(_tree(kernel, busybox), more))))
    return Image(kernel / "vmlinuz", initramfs)


def _kernel() -> Path:
    """The directory of a kernel and its modules; one that was fetched earlier does as well as a newer one."""
    there = sorted(debian.CACHE.glob("linux-image-*"))
    return there[-1] if there else debian.files(_kernel_package(), _KERNEL_FILES)


def _busybox() -> Path:
    return debian.files(_BUSYBOX, _BUSYBOX_FILES) / "busybox"


def _kernel_package() -> str:
    described = run("apt-cache", "show", "--no-all-versions", _KERNEL)
    found = re.search(r"^Depends:.*?\b(linux-image-\S+)", described, re.MULTILINE)
    if found is None:
        raise LabError(f"{_KERNEL} depends on no kernel: {described}")
    return found[1]


def _tree(kernel: Path, busybox: Path) -> Iterator[Entry]:
    for directory in ("bin", "dev", "modules", "proc", "sys"):
        yield directory, DIRECTORY, b""
    yield "bin/busybox", PROGRAM, busybox.read_bytes()
    for program in ("init", "life"):
        yield program, PROGRAM, resources.files("vmfabric.lab").joinpath("guest", program).read_bytes()
    for place, module in enumerate(_MODULES):
        yield f"modules/{place}-{module}.ko", PROGRAM, (kernel / f"{module}.ko").read_bytes()


def _archive(tree: Iterable[Entry]) -> Iterator[bytes]:
    """As the kernel reads it: Documentation/driver-api/early-userspace/buffer-format.rst, format `newc`."""
    for inode, (name, mode, content) in enumerate([*tree, ("TRAILER!!!", 0, b"")], start=1):
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08X" % value for value in fields) + name.encode() + b"\0"
        yield from (_padded(header), _padded(content))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
