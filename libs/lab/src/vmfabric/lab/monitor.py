"""What a kernel does to its routes while somebody looks."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from select import select
from typing import TextIO, cast

from vmfabric.lab.lab import Lab
from vmfabric.lab.programs import run


@contextmanager
def routes_deleted(lab: Lab, host: str) -> Iterator[list[str]]:
    """The IPv4 routes that the kernel of a host takes away meanwhile; there when the block has ended."""
    deleted: list[str] = []
    command = ["ip", "-n", lab.namespace(host), "monitor", "route"]
    with _reading(command) as seen:
        probe = ("blackhole", "192.0.2.255/32", "table", "99")
        # Not before the monitor is seen to listen, and not without all that it has to tell.
        while not select([seen], [], [], 0.05)[0]:
            run("ip", "-n", lab.namespace(host), "route", "replace", *probe)
        yield deleted
        run("ip", "-n", lab.namespace(host), "route", "del", *probe)
        for line in iter(seen.readline, ""):
            if "192.0.2.255" in line and line.startswith("Deleted"):
                break
            # The core's zebra changes an IPv6 route by deleting it and adding it again (without --v6-rr-semantics).
            if line.startswith("Deleted") and ":" not in line.split()[1]:
                deleted.append(line)


@contextmanager
def _reading(command: list[str]) -> Iterator[TextIO]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as monitor:
        try:
            if monitor.stdout is not None:
                yield cast("TextIO", monitor.stdout)
        finally:
            monitor.terminate()
