"""The machine with another kernel: Debian's, in a QEMU without KVM, on the files that are here.

It is for what the machine's own kernel cannot do, VLANs for one. A command finds every file and program where it is
here, and loads what it needs of the kernel by using it. It has no network but what it makes itself, and nothing that
it writes is here afterwards. It boots in two seconds; whatever it computes takes ten times as long as here.
"""

import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vmfabric.lab import guest_image
from vmfabric.lab.errors import LabError
from vmfabric.lab.guest_image import MACHINES_FILES, PROGRAM, Image
from vmfabric.lab.programs import ENDS_WITH_CALLER

_VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
"""Comes with Debian's QEMU."""
_MEMORY_MB = 768
_END = re.compile(r"\nended with (\d+)$", re.MULTILINE)
_KEPT = ("HOME", "PATH")
"""Of the caller's environment."""
_LOG = "virtiofsd.log"
_SHOWN = 2000


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a command."""

    status: int
    said: str
    """What it has written to stdout and stderr, the kernel's own words among it."""


def run(*command: str, environment: Mapping[str, str] | None = None, seconds: float = 120.0) -> Ended:
    """Run it as root in the directory that the caller is in. LabError when it does not end within so many seconds, or
    takes the kernel with it.
    """
    with tempfile.TemporaryDirectory(prefix="vmfabric-kernel-") as name:
        directory = Path(name)
        script = _script(command, environment or {})
        image = guest_image.assemble(
            directory, guest_image.script("machine"), MACHINES_FILES, [("command", PROGRAM, script)]
        )
        with _files_served(directory) as serving:
            said = _booted(image, serving, seconds)
        end = _END.search(said)
        if end is None:
            more = (directory / _LOG).read_text(errors="replace")
            raise LabError(f"`{shlex.join(command)}` did not end, but its kernel did: {(said + more)[-_SHOWN:]}")
    return Ended(int(end[1]), said[: end.start()])


def run_tests(module: Path, *options: str, seconds: float = 240.0) -> Ended:
    """Run the tests of a module; without any conftest.py, whose imports would take as long as the tests."""
    without = (word for plugin in ("cacheprovider", "hypothesispytest") for word in ("-p", f"no:{plugin}"))
    plain = ("--noconftest", *without, "--color=no", *options, str(module))
    # What is compiled here is not compiled there. What cannot even be collected is told by the run itself.
    subprocess.run([sys.executable, "-m", "pytest", "-q", "--collect-only", *plain], check=False, capture_output=True)
    return run(sys.executable, "-m", "pytest", *plain, seconds=seconds)


def _script(command: tuple[str, ...], environment: Mapping[str, str]) -> bytes:
    words = {name: value for name, value in os.environ.items() if name in _KEPT} | dict(environment)
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in words.items())
    here = shlex.quote(os.fspath(Path.cwd()))
    return f"#!/run/busybox sh\n{exports}cd {here} && exec {shlex.join(command)} </dev/null 2>&1\n".encode()


@contextmanager
def _files_served(directory: Path) -> Iterator[Path]:
    """All files of the machine, for the one QEMU that connects to this socket, which is in the directory."""
    path = directory / "files"
    with socket.socket(socket.AF_UNIX) as listening, (directory / _LOG).open("wb") as log:
        listening.bind(str(path))
        listening.listen(1)
        options = ("source=/", "cache=always", "sandbox=chroot", "log_level=err")
        served = subprocess.Popen(
            [
                *(*ENDS_WITH_CALLER, _VIRTIOFSD, f"--fd={listening.fileno()}", "--thread-pool-size=0"),
                *(word for option in options for word in ("-o", option)),
            ],
            pass_fds=(listening.fileno(),),
            stdout=log,
            stderr=log,
        )
    try:
        yield path
    finally:
        served.kill()
        served.wait()


def _booted(image: Image, serving: Path, seconds: float) -> str:
    """What is said on the console until the end."""
    command = (
        *ENDS_WITH_CALLER,
        *image.boot(_MEMORY_MB, f"modules={image.modules}"),
        # Its memory is where virtiofsd sees it.
        *(
            "-object",
            f"memory-backend-memfd,id=memory,size={_MEMORY_MB}M,share=on",
            "-machine",
            "memory-backend=memory",
        ),
        *("-chardev", f"socket,id=files,path={serving}", "-device", "vhost-user-fs-pci,chardev=files,tag=files"),
    )
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            timeout=seconds,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        said = (error.output or b"").decode(errors="replace")
        raise LabError(f"did not end within {seconds:.0f} s under another kernel: {said[-_SHOWN:]}") from error
    return done.stdout.decode(errors="replace").replace("\r\n", "\n")
