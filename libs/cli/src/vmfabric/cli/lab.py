"""`lab up|down|status|exec`: the data centre in network namespaces."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from vmfabric.cli.screen import console, step
from vmfabric.lab import diagnosis, frr, guests, namespaces, processes
from vmfabric.lab import making as labs
from vmfabric.lab.lab import Lab
from vmfabric.lab.state import State
from vmfabric.lab.topology import CONTROL, Router, load

app = typer.Typer(help="The lab: a data centre in network namespaces.", no_args_is_help=True)

TopologyFile = Annotated[Path | None, typer.Option("--topology", "-t", help="A topology file; default: two nodes.")]


@app.command()
def up(topology: TopologyFile = None) -> None:
    """Make the lab, and come back when everything in it answers."""
    lab = labs.up(load(topology), State.of_environment(), step)
    console.print(f"\nThe bus is at [bold]{lab.nats_url}[/], logs are in {lab.state.logs}. Next:")
    console.print("  ./vmfabric apply -f deploy/examples/ip-fabric.yaml")


@app.command()
def down() -> None:
    """Remove the lab and everything that it made."""
    state = State.of_environment()
    with step("taking the lab down"):
        was_there = labs.down(state)
    if not was_there:
        console.print(f"[dim]there was none in {state.directory}[/]")


@app.command()
def status() -> None:
    """Show every host and what runs on it. Exit code 1 when something does not."""
    lab = Lab.find()
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("host", "fabric", "management", "runs", "guests"):
        table.add_column(column)
    healthy = _add_host(table, lab, CONTROL, None)
    for router in lab.topology.routers:
        healthy &= _add_host(table, lab, router.name, router)
    console.print(table)
    console.print(f"[dim]bus {lab.nats_url}, directory {lab.state.directory}[/]")
    if not healthy:
        raise typer.Exit(1)


def _add_host(table: Table, lab: Lab, host: str, router: Router | None) -> bool:
    running = {
        program.service: processes.pid(lab.state, program) is not None
        for program in (*lab.servers(), *lab.services())
        if program.host == host
    }
    if router is not None:
        running |= {daemon: frr.pid(lab.topology, router, daemon) is not None for daemon in frr.DAEMONS}
    names = [guest.vm for guest in guests.recorded(lab.state, lab.topology) if guest.node == host]
    nodes = {node.name: str(node.management) for node in lab.topology.nodes}
    table.add_row(
        f"[bold]{host}[/]",
        "" if router is None else f"{router.ipv4} {router.ipv6}",
        nodes.get(host, str(lab.topology.management.control) if host == CONTROL else ""),
        " ".join(f"[green]{name}[/]" if is_there else f"[bold red]{name}![/]" for name, is_there in running.items()),
        _few(names),
    )
    return all(running.values())


def _few(names: list[str]) -> str:
    return " ".join(names) if len(names) <= 5 else f"{' '.join(names[:4])} and {len(names) - 4} more"


@app.command("exec", context_settings={"ignore_unknown_options": True})
def execute(
    host: Annotated[str, typer.Argument(help="A host of the lab, or a VM for its guest.")],
    command: Annotated[list[str], typer.Argument(help="What to run, after --.")],
) -> None:
    """Run a command on a host of the lab or in a guest."""
    program = namespaces.inside(Lab.find().namespace(host), *command)
    os.execvp(program[0], program)  # noqa: S606  # the point of the command: its terminal, signals and exit status


@app.command()
def dump(directory: Annotated[Path, typer.Argument(help="Where to write it.")]) -> None:
    """Write down what every host, router, process and the bus say."""
    diagnosis.write(Lab.find(), directory)
    console.print(f"written to {directory}")
