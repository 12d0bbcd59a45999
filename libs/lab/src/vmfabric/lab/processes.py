"""The lab's processes: started apart from the command that starts them, and known again by id and start time."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel

from vmfabric.lab.errors import LabError
from vmfabric.lab.state import State

_GONE_SECONDS = 10.0
_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class Program:
    """What runs where."""

    service: str
    host: str
    command: tuple[str, ...]
    """With everything that puts it into its namespace."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Names its log and its pid file."""
        return f"{self.host}-{self.service}"


class _Pid(BaseModel):
    """A process, and when it started: the kernel gives ids again, but not at the same time."""

    pid: int
    started: int
    """Clock ticks since boot, /proc/PID/stat field 22 (proc(5))."""
    log_from: int
    """Where in its log this process began, in bytes."""


def log_of(state: State, program: Program) -> Path:
    """What the program prints."""
    return state.logs / f"{program.name}.log"


def start(state: State, program: Program, *, inherit: int | None = None) -> None:
    """Start the program; it lives on when this process ends. `inherit` is a descriptor that it gets as number 3.

    LabError when it runs already.
    """
    if pid(state, program) is not None:
        raise LabError(f"{program.service} on {program.host} runs already")
    state.logs.mkdir(exist_ok=True)
    state.pids.mkdir(exist_ok=True)
    log = log_of(state, program)
    log_from = log.stat().st_size if log.exists() else 0
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    number = os.posix_spawnp(
        program.command[0],
        program.command,
        _environment(program.environment),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            *([] if inherit is None else [(os.POSIX_SPAWN_DUP2, inherit, 3)]),
        ],
        setsid=True,
    )
    started = started_at(number)
    if started is not None:  # else it has ended already; whoever waits for it reads its log
        known = _Pid(pid=number, started=started, log_from=log_from)
        _pid_file(state, program).write_text(known.model_dump_json())


def pid(state: State, program: Program) -> int | None:
    """The process that was started for the program, or None when it has ended."""
    known = _known(state, program)
    return known.pid if known is not None and started_at(known.pid) == known.started else None


def kill(state: State, program: Program, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal that ends the program, and wait until it has ended. LabError when it does not run or end."""
    process = pid(state, program)
    if process is None:
        raise LabError(f"{program.service} on {program.host} does not run")
    os.kill(process, number)
    deadline = time.monotonic() + _GONE_SECONDS
    while pid(state, program) is not None:
        if time.monotonic() > deadline:
            raise LabError(f"{program.service} on {program.host} still runs {_GONE_SECONDS} s after {number.name}")
        time.sleep(0.02)


def output(state: State, program: Program) -> str:
    """What the program has printed since it was started last; nothing when it never was."""
    known = _known(state, program)
    if known is None:
        return ""
    with log_of(state, program).open("rb") as log:
        log.seek(known.log_from)
        return log.read().decode(errors="replace")


def tail(state: State, program: Program) -> str:
    """The end of the program's log."""
    path = log_of(state, program)
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return "\n".join(lines[-_TAIL_LINES:]) or "(its log is empty)"


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """A module of this environment, as a program."""
    return (sys.executable, "-m", module, *arguments)


def started_at(number: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is no such process, or only its remains."""
    _reap(number)
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def _pid_file(state: State, program: Program) -> Path:
    return state.pids / f"{program.name}.json"


def _known(state: State, program: Program) -> _Pid | None:
    try:
        return _Pid.model_validate_json(_pid_file(state, program).read_bytes())
    except FileNotFoundError:
        return None


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    # What the operator has set for the command line (VMFABRIC_NATS_URL) is not for the services of the lab.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("VMFABRIC_")}
    return {**inherited, **own}


def _reap(number: int) -> None:
    try:
        os.waitpid(number, os.WNOHANG)
    except ChildProcessError:  # not a child of this process: whoever is its parent does it
        return
