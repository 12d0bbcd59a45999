"""All that runs in a lab by its name, `<host>/<program>`: how it is, and how it is stopped and started."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from vmfabric.lab import frr, processes, supervision
from vmfabric.lab.answers import wait_until_answers
from vmfabric.lab.errors import LabError
from vmfabric.lab.lab import Lab
from vmfabric.lab.making import start_supervisor
from vmfabric.lab.processes import Program
from vmfabric.lab.topology import Router


@dataclass(frozen=True, slots=True)
class Daemon:
    """One of a router's FRR. The lab's supervisor does not start it again."""

    router: Router
    service: str

    @property
    def host(self) -> str:
        """The router's name."""
        return self.router.name


Unit = Program | Daemon


class Condition(StrEnum):
    """Whether it is as it should be."""

    RUNS = "runs"
    STOPPED = "stopped"
    """An operator wanted it so."""
    ENDED = "ended"
    """It should run."""


@dataclass(frozen=True, slots=True)
class Health:
    """How a unit is."""

    name: str
    condition: Condition
    log: Path
    restarts: int = 0
    """How often it was started again since somebody has started it."""
    last_end: str | None = None
    """How it ended the last time."""
    ended_at: datetime | None = None
    again_at: datetime | None = None
    """When it is started again."""


def name_of(unit: Unit) -> str:
    """What operators call it."""
    return f"{unit.host}/{unit.service}"


def units(lab: Lab) -> Iterator[Unit]:
    """Everything that should run, in the order of its start."""
    yield from (lab.supervisor, *lab.servers(), *lab.services())
    yield from (Daemon(router, service) for router in lab.topology.routers for service in frr.DAEMONS)


def find(lab: Lab, name: str) -> Unit:
    """The unit of this name; the host may be left out where only one has it. LabError when there is none, or more."""
    found = [unit for unit in units(lab) if name in {name_of(unit), unit.service}]
    if len(found) == 1:
        return found[0]
    if found:
        raise LabError(f"{name} is on more than one host; say which: {', '.join(map(name_of, found))}")
    raise LabError(f"nothing in the lab is named {name!r}; there are {', '.join(map(name_of, units(lab)))}")


def health(lab: Lab, unit: Unit) -> Health:
    """How the unit is right now."""
    match unit:
        case Daemon(router, service):
            runs = frr.pid(lab.topology, router, service) is not None
            condition = Condition.RUNS if runs else Condition.ENDED
            return Health(name_of(unit), condition, lab.frr_log(router))
        case Program():
            return _health_of_program(lab, unit)


def start(lab: Lab, unit: Unit) -> None:
    """Start it, and wait until it does its work. LabError when it runs already, or does not come up."""
    match unit:
        case Daemon(router, service):
            if frr.pid(lab.topology, router, service) is not None:
                raise LabError(f"{name_of(unit)} runs already")
            frr.start_daemon(lab.topology, router, service, lab.frr_log(router))
            frr.load(lab.topology, router, service)
        case Program() if unit == lab.supervisor:
            start_supervisor(lab)
        case Program():
            supervision.start(lab.state, unit, lab.supervisor)
            wait_until_answers(lab, unit)


def stop(lab: Lab, unit: Unit) -> None:
    """Ask it to end, and have it stay stopped. LabError when it does not run or does not end."""
    match unit:
        case Daemon(router, service):
            frr.kill(lab.topology, router, service, signal.SIGTERM)
        case Program():
            supervision.stop(lab.state, unit, unit.ends_by)


def _health_of_program(lab: Lab, program: Program) -> Health:
    is_alive = processes.pid(lab.state, program) is not None
    is_wanted = program == lab.supervisor or supervision.is_ordered(lab.state, program)
    run = processes.last_run(lab.state, program)
    if run is None:
        return Health(name_of(program), Condition.ENDED, processes.log_of(lab.state, program))
    return Health(
        name_of(program),
        Condition.RUNS if is_alive else Condition.ENDED if is_wanted else Condition.STOPPED,
        processes.log_of(lab.state, program),
        run.restarts,
        run.last_end,
        run.ended_at,
        None if is_alive or not is_wanted else run.again_at,
    )
