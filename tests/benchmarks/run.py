"""The benchmarks, each in one run: `./vmfabric bench`."""

import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import allocation
import antispoof
import cluster
import decisions
import fabric
import failures
import handover
import packing
import reboot
import uvloop

from vmfabric.lab import making as labs
from vmfabric.lab.client import LabClient
from vmfabric.lab.lab import Lab
from vmfabric.lab.servers import NatsServer, PostgresServer, free_port
from vmfabric.lab.testing import own_state, own_topology

R = TypeVar("R")


def allocations() -> None:
    """On a Postgres and a nats-server of its own, without a lab."""
    print("Allocations over NATS: vm.placed in, ip.allocated out, committed in Postgres\n", flush=True)

    async def measured(directory: Path) -> str:
        with (
            PostgresServer(directory / "postgres", port=free_port()) as postgres,
            NatsServer(directory / "nats", port=free_port()) as nats,
        ):
            await postgres.start()
            await nats.start()
            servers = {"nats-server": nats.pid, "Postgres": postgres.pid}
            return allocation.table(await allocation.run(nats.url, postgres.url(), servers))

    with tempfile.TemporaryDirectory(prefix="vmfabric-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        for server in ("nats", "postgres"):
            (directory / server).mkdir()
        print(uvloop.run(measured(directory)), flush=True)


def placement() -> None:
    """How well and how fast nodes are chosen; takes half a minute."""
    print("\nPlacement: packing\n", flush=True)
    print(packing.table(packing.run()), flush=True)
    print("\nPlacement: how fast, with 12 sizes of VMs\n", flush=True)

    async def measured(directory: Path) -> str:
        with PostgresServer(directory, port=free_port()) as postgres:
            await postgres.start()
            return decisions.table(await decisions.run(postgres.url()))

    with tempfile.TemporaryDirectory(prefix="vmfabric-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "postgres").mkdir()
        print(uvloop.run(measured(directory / "postgres")), flush=True)


def anti_spoofing() -> None:
    """On the kernel alone, without a lab; takes a minute."""
    print("\nAnti-spoofing and limits: a guest, its port in a bridge, a switch\n", flush=True)
    print(antispoof.table(antispoof.measured()), flush=True)


def announcements() -> None:
    """From the request to the core."""
    print("\nAnnouncements: two nodes, two reflectors, a core\n", flush=True)
    print(fabric.table(_in_a_lab(fabric.run)), flush=True)


def handovers() -> None:
    """Live migration."""
    print("\nHandovers: the guest moves from one node to the other, pinged from the core\n", flush=True)
    print(handover.table(_in_a_lab(handover.run)), flush=True)


def node_failures() -> None:
    """Every failure in every setting; takes five minutes."""
    print("\nFailures of a node, seen from the core\n", flush=True)
    print(failures.table(_in_a_lab(failures.run)), flush=True)


def node_reboot() -> None:
    """Many VMs on one node; takes a minute."""
    print("\nA node boots while bus and database are away\n", flush=True)
    print(reboot.table(_in_a_lab(reboot.run)), flush=True)


def _in_a_lab(measure: Callable[[Lab, LabClient], Awaitable[R]]) -> R:
    async def measured(lab: Lab) -> R:
        async with cluster.applied(lab) as outside:
            return await measure(lab, outside)

    with own_state() as state:
        return uvloop.run(measured(labs.up(own_topology("m"), state)))


_BENCHMARKS = {
    "allocations": allocations,
    "placement": placement,
    "antispoof": anti_spoofing,
    "announcements": announcements,
    "handovers": handovers,
    "failures": node_failures,
    "reboot": node_reboot,
}


def main(names: list[str]) -> None:
    """Print the figures as they come."""
    for name in names:
        _BENCHMARKS[name]()


main(sys.argv[1:])
