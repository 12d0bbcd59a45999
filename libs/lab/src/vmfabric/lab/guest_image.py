"""What a real guest boots from: Debian's kernel, and an initramfs with nothing in it but busybox and our `init`.

The machine's own kernel and initramfs stay.
"""

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
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

_VIRTIO = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci")
"""Modules, each after those that it needs."""
_NETWORK_CARD = (*_VIRTIO, "failover", "net_failover", "virtio_net")
MACHINES_FILES = (*_VIRTIO, "fuse", "virtiofs", "overlay")

_KERNEL_FILES = {"vmlinuz": "vmlinuz-*", "modules": "lib/modules"}
_BUSYBOX_FILES = {"busybox": "bin/busybox"}
_QEMU = "qemu-system-x86_64"

DIRECTORY, PROGRAM, LINK = 0o040755, 0o100755, 0o120777
"""Modes of what is in an initramfs."""

Entry = tuple[str, int, bytes]
"""Path without the first slash, mode and content of a file; directories come before what is in them."""


@dataclass(frozen=True, slots=True)
class Image:
    """Two files that QEMU boots."""

    kernel: Path
    initramfs: Path

    @property
    def modules(self) -> Path:
        """All of the kernel's, in a directory that has its version for a name."""
        [directory] = (self.kernel.parent / "modules").iterdir()
        return directory

    def boot(self, memory_mb: int, *words: str) -> Iterator[str]:
        """The command, to which devices can be added. What the kernel does not know of the words is a variable of
        init's.
        """
        yield from (_QEMU, "-no-user-config", "-nodefaults", "-display", "none", "-serial", "stdio")
        yield from ("-machine", "q35", "-accel", "tcg", "-m", str(memory_mb))
        yield from ("-kernel", str(self.kernel), "-initrd", str(self.initramfs))
        # A guest that panics has ended, and must not look as if it had only been slow. A CPU that is computed needs
        # no care against its own speculation, which would take half of the time.
        yield "-no-reboot"
        yield from ("-append", " ".join(("console=ttyS0", "quiet", "panic=-1", "mitigations=off", *words)))


def make(directory: Path, more: Iterable[Entry] = ()) -> Image:
    """A guest with a network card; its initramfs is written into this directory. `more` is in it too; a program
    `network` of these configures the guest's network. LabError when something of it cannot be had.
    """
    life = ("life", PROGRAM, script("life"))
    return assemble(directory, script("init"), _NETWORK_CARD, [life, *more])


def assemble(directory: Path, init: bytes, modules: Sequence[str], more: Iterable[Entry]) -> Image:
    """An image with this first program, and with these modules for it to load, in order. LabError as above."""
    kernel, busybox = debian.once_updated(lambda: (_kernel(), _busybox()))
    _index(kernel / "modules", busybox)
    initramfs = directory / "initramfs"
    initramfs.write_bytes(b"".join(_archive(chain(_tree(kernel, busybox, init, modules), more))))
    return Image(kernel / "vmlinuz", initramfs)


def script(name: str) -> bytes:
    """A program for a guest."""
    return resources.files("vmfabric.lab").joinpath("guest", name).read_bytes()


def _kernel() -> Path:
    """The directory of a kernel and its modules; one that was fetched earlier does as well as a newer one."""
    there = sorted(it.parent for it in debian.CACHE.glob("linux-image-*/modules"))
    return there[-1] if there else debian.files(_kernel_package(), _KERNEL_FILES)


def _busybox() -> Path:
    return debian.files(_BUSYBOX, _BUSYBOX_FILES) / "busybox"


def _index(modules: Path, busybox: Path) -> None:
    """What modprobe reads; Debian makes it when the package is installed."""
    [version] = modules.iterdir()
    if (version / "modules.symbols").exists():  # the last one that is written
        return
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "lib").mkdir()
        (Path(root) / "lib/modules").symlink_to(modules)
        run(str(busybox), "depmod", "-b", root, version.name)


def _kernel_package() -> str:
    described = run("apt-cache", "show", "--no-all-versions", _KERNEL)
    found = re.search(r"^Depends:.*?\b(linux-image-\S+)", described, re.MULTILINE)
    if found is None:
        raise LabError(f"{_KERNEL} depends on no kernel: {described}")
    return found[1]


def _tree(kernel: Path, busybox: Path, init: bytes, modules: Sequence[str]) -> Iterator[Entry]:
    for directory in ("bin", "dev", "modules", "proc", "sys"):
        yield directory, DIRECTORY, b""
    yield "bin/busybox", PROGRAM, busybox.read_bytes()
    yield "init", PROGRAM, init
    for place, module in enumerate(modules):
        yield f"modules/{place:02}-{module}.ko", PROGRAM, next(kernel.rglob(f"{module}.ko")).read_bytes()


def _archive(tree: Iterable[Entry]) -> Iterator[bytes]:
    """As the kernel reads it: Documentation/driver-api/early-userspace/buffer-format.rst, format `newc`."""
    for inode, (name, mode, content) in enumerate([*tree, ("TRAILER!!!", 0, b"")], start=1):
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08X" % value for value in fields) + name.encode() + b"\0"
        yield from (_padded(header), _padded(content))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
