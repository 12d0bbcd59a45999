"""What a real guest boots from: Debian's kernel, and an initramfs with nothing in it but busybox and our `init`.

The machine's own kernel and initramfs stay.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
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

_DIRECTORY_MODE, _PROGRAM_MODE = 0o040755, 0o100755


@dataclass(frozen=True, slots=True)
class Image:
    """Two files that QEMU boots."""

    kernel: Path
    initramfs: Path


def make(directory: Path) -> Image:
    """The image; its initramfs is written into this directory. LabError when something of it cannot be had."""
    kernel, busybox = debian.once_updated(lambda: (_kernel(), _busybox()))
    initramfs = directory / "initramfs"
    initramfs.write_bytes(b"".join(_archive(_tree(kernel, busybox))))
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


def _tree(kernel: Path, busybox: Path) -> Iterator[tuple[str, int, bytes]]:
    for directory in ("bin", "dev", "modules", "proc", "sys"):
        yield directory, _DIRECTORY_MODE, b""
    yield "bin/busybox", _PROGRAM_MODE, busybox.read_bytes()
    for program in ("init", "life"):
        yield program, _PROGRAM_MODE, resources.files("vmfabric.lab").joinpath("guest", program).read_bytes()
    for place, module in enumerate(_MODULES):
        yield f"modules/{place}-{module}.ko", _PROGRAM_MODE, (kernel / f"{module}.ko").read_bytes()


def _archive(tree: Iterator[tuple[str, int, bytes]]) -> Iterator[bytes]:
    """As the kernel reads it: Documentation/driver-api/early-userspace/buffer-format.rst, format `newc`."""
    for inode, (name, mode, content) in enumerate([*tree, ("TRAILER!!!", 0, b"")], start=1):
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08X" % value for value in fields) + name.encode() + b"\0"
        yield from (_padded(header), _padded(content))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
