"""`lab up|down|dump`: the data centre in network namespaces."""

from pathlib import Path
from typing import Annotated

import typer

from vmfabric.cli.lab_status import is_up_already
from vmfabric.cli.screen import console, errors, step
from vmfabric.lab import diagnosis, making
from vmfabric.lab.errors import LabError, LabIsUpError
from vmfabric.lab.lab import Lab
from vmfabric.lab.state import State
from vmfabric.lab.topology import PACKAGED, load


def _topology(which: str | None) -> str | None:
    if which is not None and which not in PACKAGED:
        if Path(which).is_dir():
            raise typer.BadParameter(f"file '{which}' is a directory")
        if not Path(which).exists():
            raise typer.BadParameter(f"file '{which}' does not exist, and the lab itself has {', '.join(PACKAGED)}")
    return which


TopologyFile = Annotated[
    str | None,
    typer.Option(
        "--topology",
        "-t",
        metavar="FILE",
        callback=_topology,
        help=f"A topology file, or one of {', '.join(PACKAGED)}; default: two nodes of an ip-fabric.",
    ),
]


def up(
    topology: TopologyFile = None,
    nats: Annotated[
        int | None, typer.Option(help="nats-servers: 1, or 3 as a cluster with streams of three replicas.")
    ] = None,
    control: Annotated[
        int | None, typer.Option(help="Processes of scheduler and ipam: 1, or 2, of which one waits.")
    ] = None,
    postgres: Annotated[
        int | None, typer.Option(help="Postgres servers: 1, or 2, of which one is a synchronous standby.")
    ] = None,
) -> None:
    """Make the lab, and come back when everything in it answers."""
    state = State.of_environment()
    try:
        lab = making.up(load(topology, nats=nats, control=control, postgres=postgres), state, step)
    except LabIsUpError as error:
        raise LabError(is_up_already(Lab.find(state))) from error
    except KeyboardInterrupt as interruption:
        if state.record() is not None:
            errors.print(
                "interrupted; `./vmfabric lab up` makes it anew, `./vmfabric lab down` removes what is there"
            )
        raise typer.Exit(130) from interruption
    console.print(f"\nThe bus is at [bold]{lab.nats_url}[/], logs are in {lab.state.logs}. Next:", soft_wrap=True)
    for network_type in lab.topology.types:
        console.print(f"  ./vmfabric apply -f deploy/examples/{network_type}.yaml")


def down() -> None:
    """Remove the lab and everything that it made."""
    state = State.of_environment()
    if state.record() is None:
        making.down(state)  # a directory in which a killed command has made nothing yet
        console.print(f"there is no lab in {state.directory}", soft_wrap=True)
        return
    take_down(state)


def take_down(state: State) -> None:
    """Remove the lab, and show it."""
    try:
        with step("taking the lab down"):
            making.down(state)
    except KeyboardInterrupt as interruption:
        errors.print(f"interrupted; what is left of the lab in {state.directory} is removed by `./vmfabric lab down`")
        raise typer.Exit(130) from interruption


def dump(directory: Annotated[Path, typer.Argument(help="Where to write it.", file_okay=False)]) -> None:
    """Write down what every host, router, process and the bus say."""
    diagnosis.write(Lab.find(), directory)
    console.print(f"written to {directory}", soft_wrap=True)
