"""`check` and `test`: what CI runs."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from vmfabric.cli.screen import errors, step
from vmfabric.contract import asyncapi
from vmfabric.lab.errors import LabError

_SOURCES = ("libs", "services", "tests", "conftest.py")
_CONTRACT = Path("docs/asyncapi.json")


def check() -> None:
    """Lint, format, types, imports, and whether the contract's document is fresh."""
    root = _root()
    there = [source for source in _SOURCES if (root / source).exists()]
    _run("ruff check", ["ruff", "check", "--quiet", *there])
    _run("ruff format", ["ruff", "format", "--check", "--quiet", *there])
    _run("types", ["mypy", *there])
    _run("imports", ["lint-imports"])
    with step("contract document"):
        if (root / _CONTRACT).read_text() != asyncapi.text():
            raise LabError(f"{_CONTRACT} is not what the models say; `./vmfabric contract` writes it anew")


def contract() -> None:
    """Write docs/asyncapi.json from the models."""
    (_root() / _CONTRACT).write_text(asyncapi.text())


def run_tests(
    arguments: Annotated[list[str] | None, typer.Argument(help="For pytest.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Leave out what needs a lab, and the checks.")] = False,
    expression: Annotated[str | None, typer.Option("-k", help="Only tests that match, without the checks.")] = None,
) -> None:
    """Run everything that CI runs: the checks, then every test."""
    root = _root()
    if not fast and expression is None and not arguments:
        check()
    command = [sys.executable, "-m", "pytest", *(arguments or ())]
    command += ["-m", "not lab"] if fast else []
    command += ["-k", expression] if expression is not None else []
    os.chdir(root)
    os.execv(command[0], command)  # noqa: S606  # its terminal and its exit status are ours


def _run(what: str, command: Sequence[str]) -> None:
    program = Path(sys.executable).with_name(command[0])
    with step(what):
        done = subprocess.run([program, *command[1:]], cwd=_root(), capture_output=True, text=True, check=False)
        if done.returncode:
            errors.print(done.stdout + done.stderr, markup=False)
            raise LabError(f"`{' '.join(command)}` found something to mend")


def _root() -> Path:
    """The checkout, from the bootstrap script. LabError when this is not run by it."""
    try:
        return Path(os.environ["VMFABRIC_ROOT"])
    except KeyError as error:
        raise LabError("this command works on a checkout: run it as ./vmfabric") from error
