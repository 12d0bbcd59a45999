"""`check` and `test`: what CI runs."""

import os
import subprocess
import sys
from collections.abc import Sequence
from enum import StrEnum
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
    _check_types(root)
    _run("imports", ["lint-imports"])
    with step("contract document"):
        if (root / _CONTRACT).read_text() != asyncapi.text():
            raise LabError(f"{_CONTRACT} is not what the models say; `./vmfabric contract` writes it anew")


def contract() -> None:
    """Write docs/asyncapi.json from the models."""
    (_root() / _CONTRACT).write_text(asyncapi.text())


class Benchmark(StrEnum):
    """What can be measured."""

    ALLOCATIONS = "allocations"
    PLACEMENT = "placement"
    ANTISPOOF = "antispoof"
    ANNOUNCEMENTS = "announcements"
    HANDOVERS = "handovers"
    FAILURES = "failures"
    REBOOT = "reboot"


_LONG = (Benchmark.FAILURES, Benchmark.REBOOT)
"""Measured only when they are named."""


def bench(
    what: Annotated[
        list[Benchmark] | None, typer.Argument(help="Of these only; failures take five minutes, reboot one.")
    ] = None,
) -> None:
    """Print figures and ratios of this machine, all from one run: a few minutes. The long ones only when named."""
    names = what or [name for name in Benchmark if name not in _LONG]
    os.execv(sys.executable, [sys.executable, str(_root() / "tests" / "benchmarks" / "run.py"), *names])  # noqa: S606


def simulate(
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many.")] = 100,
    first: Annotated[int, typer.Option("--first", min=0, help="The first of them.")] = 0,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Only this one, with its whole story.")] = None,
) -> None:
    """Run the services in virtual time with everything going wrong that can; each seed is a life of its own."""
    what = ["--seeds", str(seeds), "--first", str(first)] if seed is None else ["--seed", str(seed)]
    os.environ["PYTHONPATH"] = str(_root() / "tests")
    os.execv(sys.executable, [sys.executable, "-m", "simulation", *what])  # noqa: S606


def chaos(
    seed: Annotated[int, typer.Option("--seed", min=0, help="Decides what happens, not when exactly.")] = 1,
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="How long.")] = 5.0,
) -> None:
    """Kill, cut and restart the parts of a lab of its own, under load; 1 when something is wrong in the end."""
    os.environ["PYTHONPATH"] = str(_root() / "tests")
    os.execv(sys.executable, [sys.executable, "-m", "chaos", "--seed", str(seed), "--minutes", str(minutes)])  # noqa: S606


def run_tests(
    arguments: Annotated[list[str] | None, typer.Argument(help="For pytest.")] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Leave out the checks, and what needs a lab or takes long.")
    ] = False,
    expression: Annotated[str | None, typer.Option("-k", help="Only tests that match, without the checks.")] = None,
    seeded_bugs: Annotated[
        bool,
        typer.Option("--seeded-bugs", help="Break the code in a copy, one bug after the other: which test sees it?"),
    ] = False,
) -> None:
    """Run everything that CI runs: the checks, then every test."""
    root = _root()
    if seeded_bugs:
        os.environ["PYTHONPATH"] = str(root / "tests")
        os.execv(sys.executable, [sys.executable, "-m", "bugs"])  # noqa: S606
    if not fast and expression is None and not arguments:
        check()
    command = [sys.executable, "-m", "pytest", *(arguments or ())]
    command += ["-m", "not lab and not long"] if fast else []
    command += ["-k", expression] if expression is not None else []
    os.chdir(root)
    os.execv(command[0], command)  # noqa: S606  # its terminal and its exit status are ours


def _check_types(root: Path) -> None:
    services = sorted(service for service in root.glob("services/*") if service.is_dir())
    tests = [service / "tests" for service in services if (service / "tests").is_dir()]
    sources = [str(service / "src") for service in services]
    # Tests in a directory that cannot be a package's have no names of their own: two conftest.py would be one module.
    unnamed = [directory for directory in tests if not directory.parent.name.isidentifier()]
    named = [str(directory) for directory in tests if directory not in unnamed]
    _run("types", ["mypy", "libs", "tests", "conftest.py", *sources, *named])
    for directory in unnamed:
        where = directory.parent
        options = ("--config-file", str(root / "pyproject.toml"), "--cache-dir", str(root / ".mypy_cache"))
        _run(f"types of the tests of {where.name}", ["mypy", *options, "tests"], directory=where)


def _run(what: str, command: Sequence[str], *, directory: Path | None = None) -> None:
    program = Path(sys.executable).with_name(command[0])
    with step(what):
        done = subprocess.run(
            [program, *command[1:]], cwd=directory or _root(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            errors.print(done.stdout + done.stderr, markup=False, soft_wrap=True)
            raise LabError(f"`{' '.join(command)}` found something to mend")


def _root() -> Path:
    """The checkout, from the bootstrap script. LabError when this is not run by it."""
    try:
        return Path(os.environ["VMFABRIC_ROOT"])
    except KeyError as error:
        raise LabError("this command works on a checkout: run it as ./vmfabric") from error
