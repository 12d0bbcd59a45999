"""`lab start|stop|restart NAME`: one program of the lab, as `lab status` names it."""

from typing import Annotated

import typer

from vmfabric.cli.screen import step
from vmfabric.lab import units
from vmfabric.lab.lab import Lab
from vmfabric.lab.units import Condition

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="As n1/node-agent; the host may be left out where only one has it.")
]


def start(name: Name) -> None:
    """Start a program of the lab, and wait until it does its work."""
    lab = Lab.find()
    unit = units.find(lab, name)
    with step(f"starting {units.name_of(unit)}"):
        units.start(lab, unit)


def stop(name: Name) -> None:
    """Stop a program of the lab. It stays away until it is started."""
    lab = Lab.find()
    unit = units.find(lab, name)
    with step(f"stopping {units.name_of(unit)}"):
        units.stop(lab, unit)


def restart(name: Name) -> None:
    """Stop a program of the lab, if it runs, and start it at once."""
    lab = Lab.find()
    unit = units.find(lab, name)
    if units.health(lab, unit).condition is Condition.RUNS:
        with step(f"stopping {units.name_of(unit)}"):
            units.stop(lab, unit)
    with step(f"starting {units.name_of(unit)}"):
        units.start(lab, unit)
