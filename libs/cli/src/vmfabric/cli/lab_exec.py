"""`lab exec`: a command on a host of the lab or in a guest."""

import os
from typing import Annotated

import typer

from vmfabric.lab import namespaces
from vmfabric.lab.lab import Lab


def execute(
    host: Annotated[str, typer.Argument(help="A host of the lab, or a VM for its guest.")],
    command: Annotated[list[str], typer.Argument(help="What to run, after --.")],
) -> None:
    """Run a command on a host of the lab or in a guest."""
    program = namespaces.inside(Lab.find().namespace(host), *command)
    os.execvp(program[0], program)  # noqa: S606  # the point of the command: its terminal, signals and exit status
