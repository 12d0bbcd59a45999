"""What commands tell the lab's supervisor: which programs should run.

An order is a file. It is there as long as its program should run; the supervisor starts what has an order and does
not run, and writes down what became of it. Neither needs the other to be there at the same time.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel

from vmfabric.lab import processes
from vmfabric.lab.errors import LabError
from vmfabric.lab.processes import Program
from vmfabric.lab.state import State

NEWS = signal.SIGUSR1
"""Tells the supervisor that an order was given or taken back."""
SIGNALS = (NEWS, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
"""What the supervisor waits for. It is started with all of them blocked, so that none comes too early."""

_START_SECONDS = 5.0
_GONE_SECONDS = 10.0
_POLL_SECONDS = 0.01


class Order(BaseModel):
    """That a program should run."""

    program: Program
    number: int
    """Another one each time: to stop a program and start it again is no restart by itself."""


def orders(state: State) -> Iterator[Order]:
    """Every order that stands."""
    for path in sorted(state.orders.glob("*.json")):
        with suppress(FileNotFoundError):  # taken back since it was listed
            yield Order.model_validate_json(path.read_bytes())


def is_ordered(state: State, program: Program) -> bool:
    """Whether the program should run."""
    return _file(state, program).exists()


def begin(state: State, supervisor: Program, listener: int) -> None:
    """Start the supervisor itself, with the socket that listens outside of the lab."""
    state.orders.mkdir(exist_ok=True)
    run = processes.spawn(state, supervisor, inherit=listener, blocked=SIGNALS)
    processes.write(state, supervisor, run)


def start(state: State, program: Program, supervisor: Program) -> None:
    """Have the program run from now on; returns when it was started. LabError when it runs already."""
    if processes.pid(state, program) is not None:
        raise LabError(f"{program.service} on {program.host} runs already")
    process = processes.pid(state, supervisor)
    if process is None:
        raise LabError("the lab's supervisor does not run, so nothing is started; `./vmfabric lab start supervisor`")
    order = Order(program=program, number=time.time_ns())
    state.replace(_file(state, program), order.model_dump_json())
    os.kill(process, NEWS)
    _until(
        lambda: (run := processes.last_run(state, program)) is not None and run.order == order.number,
        _START_SECONDS,
        f"the lab's supervisor does not start {program.service} on {program.host}; "
        f"its log is {processes.log_of(state, supervisor)}",
    )


def stop(state: State, program: Program, number: signal.Signals) -> None:
    """End the program with a signal, and have it stay away. LabError when it does not run anyway, or does not end."""
    was_ordered = is_ordered(state, program)
    _file(state, program).unlink(missing_ok=True)  # first: what ends now is not started again
    process = processes.pid(state, program)
    if process is None and not was_ordered:
        raise LabError(f"{program.service} on {program.host} does not run")
    if process is not None:
        end(state, program, process, number)


def end(state: State, program: Program, process: int, number: signal.Signals) -> None:
    """Send a signal that ends the process, and wait until it has ended. LabError when it does not."""
    with suppress(ProcessLookupError):  # it has ended by itself at this moment
        os.kill(process, number)
    _until(
        lambda: processes.pid(state, program) != process,
        _GONE_SECONDS,
        f"{program.service} on {program.host} still runs {_GONE_SECONDS:.0f} s after {number.name}",
    )


def _until(condition: Callable[[], bool], seconds: float, complaint: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(complaint)
        time.sleep(_POLL_SECONDS)


def _file(state: State, program: Program) -> Path:
    return state.orders / f"{program.name}.json"
