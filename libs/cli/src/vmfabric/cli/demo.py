"""`demo`: a lab, VMs that come, answer and go, and proof that nothing of them is left."""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from vmfabric.cli import demo_report
from vmfabric.cli.apply import apply_one
from vmfabric.cli.demo_report import VmTimes
from vmfabric.cli.documents import read
from vmfabric.cli.facts import line
from vmfabric.cli.lab import TopologyFile, take_down
from vmfabric.cli.lab_status import is_up_already
from vmfabric.cli.screen import console, duration, step
from vmfabric.contract.addresses import Family, HostAddress
from vmfabric.contract.errors import VmfabricError
from vmfabric.contract.guest import GuestRunning
from vmfabric.contract.node import NodeJoined
from vmfabric.contract.route import BgpSessionUp
from vmfabric.contract.vm import VmDeleted, VmFailed, VmReady
from vmfabric.lab import diagnosis, making, traces
from vmfabric.lab.client import Heard, LabClient, connect
from vmfabric.lab.errors import LabError, LabIsUpError
from vmfabric.lab.hosts import answers_ping
from vmfabric.lab.lab import Lab
from vmfabric.lab.state import State
from vmfabric.lab.topology import Topology, load

_CLUSTER = "msk"
_EXAMPLE = Path("deploy/examples/ip-fabric.yaml")
_SIZE = {"cpu": 1, "memory_mb": 1024, "disk_gb": 10}
_READY_SECONDS = 60.0
_PING_SECONDS = 10.0
_PINGS = 4
"""At the same time."""
_SHOW_ALL = 3
"""With more VMs than this, only what ends a request is shown."""


def demo(
    vms: Annotated[int, typer.Option("--vms", "-n", min=1, max=200, help="How many VMs to ask for.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab and the VMs there.")] = False,
    topology: TopologyFile = None,
) -> None:
    """Show it all: a data centre, VMs that come and answer a ping from its core, and go again."""
    state = State.of_environment()
    started = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) leaves it
            signal.signal(number, signal.default_int_handler)  # the same as Ctrl-C
    made = _Made()
    try:
        _show_all(made, state, load(topology), vms, keep=keep)
    except KeyboardInterrupt as interruption:
        console.print("\n[bold]interrupted[/]")
        if made.anything:
            _end(state, keep=keep)
        raise typer.Exit(130) from interruption
    _end(state, keep=keep)
    console.print(f"[bold green]✓[/] all done in {duration(time.monotonic() - started)}")


@dataclass
class _Made:
    """Whether the demo has made anything: a lab that was there before is left alone, whatever happens."""

    anything: bool = False

    def step(self, what: str) -> AbstractContextManager[None]:
        self.anything = True
        return step(what)


def _show_all(made: _Made, state: State, topology: Topology, vms: int, *, keep: bool) -> None:
    try:
        lab = making.up(topology, state, made.step)
        asyncio.run(_Demo(lab, vms, keep=keep).run())
    except LabIsUpError as error:
        raise LabError(is_up_already(Lab.find(state))) from error
    except (LabError, VmfabricError, TimeoutError) as error:
        if not made.anything or state.record() is None:
            raise
        console.print(f"\n[bold red]✗ the demo failed:[/] {escape(str(error))}", soft_wrap=True)
        directory = Path(tempfile.mkdtemp(prefix="vmfabric-demo-"))
        diagnosis.write(Lab.find(state), directory)
        console.print(
            f"  what every host, router, process and the bus said is in [bold]{directory}[/]", soft_wrap=True
        )
        _end(state, keep=keep)
        raise typer.Exit(1) from error


def _end(state: State, *, keep: bool) -> None:
    if keep:
        console.print("\nIt is all still there: [bold]./vmfabric lab status[/], [bold]./vmfabric watch[/];")
        console.print("[bold]./vmfabric lab down[/] ends it")
    else:
        take_down(state)


@dataclass
class _Demo:
    lab: Lab
    count: int
    keep: bool
    times: dict[str, VmTimes] = field(default_factory=dict)
    began: float = 0.0
    quiet: bool = True
    pings: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_PINGS))

    async def run(self) -> None:
        async with connect(self.lab.nats_url, self._show) as outside:
            await self._apply(outside)
            before = await traces.settled(self.lab, outside)
            await self._create(outside)
            if not self.keep:
                await self._delete(outside)
                await self._prove_nothing_left(outside, before)
        console.print()
        console.print(demo_report.table(list(self.times.values())))

    async def _apply(self, outside: LabClient) -> None:
        _title("A cluster is applied")
        example = Path(os.environ.get("VMFABRIC_ROOT", ".")) / _EXAMPLE
        for document in read(example.read_text(), origin=str(example)):
            await apply_one(outside.client, document)
        with step("nodes joined, each with BGP sessions to both reflectors"):
            for node in self.lab.topology.nodes:
                await outside.wait_for(NodeJoined, node=node.name)
                for reflector in self.lab.topology.reflectors:
                    await outside.wait_for(BgpSessionUp, node=node.name, reflector=reflector.ipv4)

    async def _create(self, outside: LabClient) -> None:
        names = [f"vm{number}" for number in range(1, self.count + 1)]
        _title(f"{_vms(self.count)} requested")
        with self._live():
            for name in names:
                self.times[name] = VmTimes(name, requested=time.monotonic())
                await outside.publish("vm.requested", {"cluster": _CLUSTER, "vm": name, **_SIZE})
            await asyncio.gather(*(self._follow(outside, name) for name in names))
        for family in Family:
            answered = sum(family in times.answered for times in self.times.values())
            console.print(f"[green]✓[/] {answered} of {len(names)} answer a ping from the core over {family}")

    async def _follow(self, outside: LabClient, name: str) -> None:
        times = self.times[name]
        times.ready = await outside.wait_for(VmReady, vm=name, unless=VmFailed, seconds=_READY_SECONDS)
        times.ready_at = outside.when(VmReady, vm=name)
        await outside.wait_for(GuestRunning, vm=name, node=times.ready.node, seconds=_READY_SECONDS)
        times.running_at = outside.when(GuestRunning, vm=name)
        for allocated in times.ready.addresses:
            times.answered[allocated.family] = await self._first_answer(name, allocated.address)

    async def _first_answer(self, vm: str, address: HostAddress) -> float:
        deadline = time.monotonic() + _PING_SECONDS
        async with self.pings:
            while not await asyncio.to_thread(answers_ping, self.lab, "core", address):
                if time.monotonic() > deadline:
                    raise LabError(f"{vm} does not answer a ping from the core to {address} in {_PING_SECONDS:.0f} s")
            return time.monotonic()

    async def _delete(self, outside: LabClient) -> None:
        _title(f"{_vms(self.count)} deleted")
        with self._live():
            for times in self.times.values():
                times.delete_requested = time.monotonic()
                await outside.publish("vm.delete.requested", {"cluster": _CLUSTER, "vm": times.vm})
            for times in self.times.values():
                await outside.wait_for(VmDeleted, vm=times.vm, seconds=_READY_SECONDS)
                times.deleted_at = outside.when(VmDeleted, vm=times.vm)

    async def _prove_nothing_left(self, outside: LabClient, before: traces.Traces) -> None:
        left = await traces.left_over(self.lab, outside, before)
        if left:
            raise LabError("the deleted VMs have left something behind:\n  " + "\n  ".join(left))
        console.print("[green]✓[/] nothing of them is left: links, routes, rules, FRR, keys, addresses, guests")

    @contextmanager
    def _live(self) -> Iterator[None]:
        self.began, self.quiet = time.monotonic(), False
        try:
            yield
        finally:
            self.quiet = True

    def _show(self, heard: Heard) -> None:
        if not self.quiet and (self.count <= _SHOW_ALL or isinstance(heard.event, VmReady | VmDeleted | VmFailed)):
            console.print(line(f"{heard.at - self.began:+7.3f} s", heard.subject, heard.body), soft_wrap=True)


def _title(text: str) -> None:
    console.print(f"\n[bold]{text}[/]")


def _vms(count: int) -> str:
    return "A VM is" if count == 1 else f"{count} VMs are"
