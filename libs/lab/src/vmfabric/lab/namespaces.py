"""Network namespaces: made, looked into, and removed with every process that runs in them."""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from vmfabric.lab.errors import LabError
from vmfabric.lab.programs import run

DIRECTORY = Path("/run/netns")
"""Where ip-netns(8) keeps the names."""

_TERM_SECONDS = 1.0
_KILL_SECONDS = 5.0


def exists(name: str) -> bool:
    """Whether there is a namespace of this name."""
    return (DIRECTORY / name).exists()


def create(name: str) -> None:
    """Make a namespace with its loopback up. LabError when the name is taken."""
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")


def inside(name: str, *command: str) -> tuple[str, ...]:
    """The command, to be run in the namespace."""
    return ("ip", "netns", "exec", name, *command)


def set_sysctls(name: str, values: dict[str, str]) -> None:
    """Write kernel parameters of a namespace."""
    if values:
        run(*inside(name, "sysctl", "-q", "-w", *(f"{key}={value}" for key, value in values.items())))


def remove(names: Iterable[str]) -> set[int]:
    """End every process that runs in these namespaces, and remove them. Names that do not exist are passed over.

    A namespace lives as long as a process in it, so whatever was started in one of the lab's belongs to the lab.
    Gives the ids that the processes had. LabError when one cannot be ended.
    """
    there = [name for name in names if exists(name)]
    ended = _end_processes(there)
    for name in there:
        run("ip", "netns", "delete", name)
    return ended


def processes(names: Iterable[str]) -> set[int]:
    """The ids of all processes whose network namespace is one of these."""
    wanted = {identity for name in names if (identity := _identity(DIRECTORY / name)) is not None}
    # A name that someone has bound to the machine's own namespace must not make the whole machine ours.
    wanted -= {_identity(Path("/proc/self/ns/net")), _identity(Path("/proc/1/ns/net"))}
    if not wanted:
        return set()
    return {
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _identity(entry / "ns/net") in wanted
    }


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone meanwhile, or a kernel thread
        return None
    return status.st_dev, status.st_ino


def _end_processes(names: list[str]) -> set[int]:
    ended: set[int] = set()
    for number, seconds in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
        deadline = time.monotonic() + seconds
        told: set[int] = set()
        while found := processes(names):
            for pid in found - told:  # those too that one of them has started meanwhile
                with suppress(ProcessLookupError):  # ended by itself since it was listed
                    os.kill(pid, number)
            told |= found
            ended |= found
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            return ended
    raise LabError(f"processes {sorted(found)} in {', '.join(names)} could not be ended")
