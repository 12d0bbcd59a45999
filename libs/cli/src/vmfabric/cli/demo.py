"""`demo`: a lab, VMs of each network type that come, answer and go, and proof that nothing of them is left."""

import asyncio
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from vmfabric.cli import demo_report
from vmfabric.cli.demo_plans import plans
from vmfabric.cli.demo_report import Shown
from vmfabric.cli.demo_tour import Tour
from vmfabric.cli.lab import TopologyFile, take_down
from vmfabric.cli.lab_status import is_up_already
from vmfabric.cli.screen import console, duration, step
from vmfabric.contract.cluster import NetworkType
from vmfabric.contract.errors import VmfabricError
from vmfabric.lab import diagnosis, making
from vmfabric.lab.errors import LabError, LabIsUpError
from vmfabric.lab.lab import Lab
from vmfabric.lab.state import State
from vmfabric.lab.topology import Topology, load

_ALL = "all-types"


def demo(
    network_type: Annotated[
        NetworkType | None, typer.Option("--type", help="Only this network type; default: all three.")
    ] = None,
    vms: Annotated[
        int, typer.Option("--vms", "-n", min=1, max=200, help="How many VMs to ask for in the ip-fabric.")
    ] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab and the VMs there.")] = False,
    topology: TopologyFile = None,
) -> None:
    """Show it all: a data centre, VMs that come, answer pings from its routers and from each other, and go again."""
    state = State.of_environment()
    started = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) leaves it
            signal.signal(number, signal.default_int_handler)  # the same as Ctrl-C
    made = _Made()
    try:
        _show_all(made, state, load(topology or _topology_of(network_type)), network_type, vms, keep=keep)
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


def _topology_of(network_type: NetworkType | None) -> str | None:
    match network_type:
        case None:
            return _ALL
        case NetworkType.IP_FABRIC:
            return None
        case _:
            return network_type


def _show_all(
    made: _Made, state: State, topology: Topology, only: NetworkType | None, count: int, *, keep: bool
) -> None:
    shown = [only] if only else topology.types
    planned = plans(topology, count)
    if missing := [it for it in shown if it not in planned]:
        raise LabError(f"the topology has no nodes of type {', '.join(missing)}; it has {', '.join(planned)}")
    try:
        lab = making.up(topology, state, made.step)
        asyncio.run(_show([Tour(lab, it, planned[it], keep=keep) for it in shown]))
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


async def _show(tours: Sequence[Tour]) -> None:
    for tour in tours:
        await tour.run()
    if len(tours) > 1:
        console.print()
        console.print(demo_report.summary([Shown(it.type, list(it.times.values()), it.pings) for it in tours]))


def _end(state: State, *, keep: bool) -> None:
    if keep:
        console.print("\nIt is all still there: [bold]./vmfabric lab status[/], [bold]./vmfabric watch[/];")
        console.print("[bold]./vmfabric lab down[/] ends it")
    else:
        take_down(state)
