"""The lab's processes: each leads a session of its own, and is known again by its id and start time."""

import os
import signal
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from signal import Signals

from pydantic import BaseModel

from vmfabric.lab.state import State

_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class Program:
    """What runs where."""

    service: str
    host: str
    command: tuple[str, ...]
    """With everything that puts it into its namespace."""
    environment: Mapping[str, str] = field(default_factory=dict)
    ends_by: Signals = Signals.SIGTERM
    """Asks it to finish and end."""
    takes_door: bool = False
    """It gets the socket that listens outside of the lab as descriptor 3."""

    @property
    def name(self) -> str:
        """Names its log and the files that tell of it."""
        return f"{self.host}-{self.service}"


class Run(BaseModel):
    """The last process of a program, and when it started: the kernel gives ids again, but not at the same time."""

    order: int = 0
    """The order that it was started by."""
    pid: int
    started: int
    """Clock ticks since boot, /proc/PID/stat field 22 (proc(5))."""
    log_from: int
    """Where in its log this process began, in bytes."""
    restarts: int = 0
    """How often the program was started again by itself since the order was given."""
    last_end: str | None = None
    """How it ended the last time, in words."""
    ended_at: datetime | None = None
    again_at: datetime | None = None
    """When it is started again, after it has ended by itself."""


def log_of(state: State, program: Program) -> Path:
    """What the program prints."""
    return state.logs / f"{program.name}.log"


def spawn(state: State, program: Program, *, inherit: int | None = None, blocked: Collection[int] = ()) -> Run:
    """Start the program; it lives on when this process ends. Whoever calls this keeps the run with `write`.

    `inherit` is a descriptor that it gets as number 3, `blocked` are the signals that it starts with blocked.
    """
    state.logs.mkdir(exist_ok=True)
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
        setsigmask=blocked,
        setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
    )
    _, started = _status(number)  # of a child that nobody has waited for, so it is there even when it has ended
    return Run(pid=number, started=started, log_from=log_from)


def write(state: State, program: Program, run: Run) -> None:
    """Keep what is known of the program's last process. Only its supervisor does."""
    state.pids.mkdir(exist_ok=True)
    state.replace(_run_file(state, program), run.model_dump_json())


def last_run(state: State, program: Program) -> Run | None:
    """The last process that was started for the program, or None when none ever was."""
    try:
        return Run.model_validate_json(_run_file(state, program).read_bytes())
    except FileNotFoundError:
        return None


def is_alive(run: Run) -> bool:
    """Whether the process of the run is there."""
    return started_at(run.pid) == run.started


def pid(state: State, program: Program) -> int | None:
    """The process that was started for the program, or None when it has ended."""
    run = last_run(state, program)
    return run.pid if run is not None and is_alive(run) else None


def output(state: State, program: Program) -> str:
    """What the program has printed since it was started last; nothing when it never was."""
    run = last_run(state, program)
    if run is None:
        return ""
    with log_of(state, program).open("rb") as log:
        log.seek(run.log_from)
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
        status, started = _status(number)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if status in {"Z", "X"} else started


def _status(number: int) -> tuple[str, int]:
    fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[19])


def _run_file(state: State, program: Program) -> Path:
    return state.pids / f"{program.name}.json"


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    # What the operator has set for the command line (VMFABRIC_NATS_URL) is not for the services of the lab.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("VMFABRIC_")}
    return {**inherited, **own}


def _reap(number: int) -> None:
    try:
        os.waitpid(number, os.WNOHANG)
    except ChildProcessError:  # not a child of this process: whoever is its parent does it
        return
