"""What was ordered runs, whatever happens to it."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmfabric.lab import processes, supervision, supervisor
from vmfabric.lab.errors import LabError
from vmfabric.lab.processes import Program, Run, python
from vmfabric.lab.state import Record, State
from vmfabric.lab.topology import load

SLEEPER = Program("sleeper", "here", ("sleep", "600"))
OTHER = Program("other", "here", ("sleep", "600"))


def eventually(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


class House:
    """A directory with a supervisor, and what it starts."""

    def __init__(self, directory: Path) -> None:
        self.state = State(directory)
        self.state.write(Record(topology=load(None)))
        self.supervisor = Program(
            "supervisor", "here", python("vmfabric.lab.supervisor", str(directory)), ends_by=signal.SIGTERM
        )
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.begin()

    def begin(self) -> None:
        supervision.begin(self.state, self.supervisor, self.listener.fileno())

    def start(self, program: Program) -> None:
        supervision.start(self.state, program, self.supervisor)

    def stop(self, program: Program) -> None:
        supervision.stop(self.state, program, signal.SIGKILL)

    def crash(self, program: Program) -> None:
        supervision.end(self.state, program, self.pid(program), signal.SIGKILL)

    def runs(self, program: Program) -> bool:
        return processes.pid(self.state, program) is not None

    def pid(self, program: Program) -> int:
        process = processes.pid(self.state, program)
        assert process is not None, f"{program.name} does not run"
        return process

    def run(self, program: Program) -> Run:
        run = processes.last_run(self.state, program)
        assert run is not None
        return run

    def close(self) -> None:
        self.listener.close()
        for path in self.state.orders.glob("*"):
            path.unlink()
        if self.runs(self.supervisor):
            self.crash(self.supervisor)
        for path in self.state.pids.glob("*.json"):
            run = Run.model_validate_json(path.read_bytes())
            if processes.is_alive(run):
                os.kill(run.pid, signal.SIGKILL)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


def test_a_program_that_ends_by_itself_is_started_again_and_that_is_counted(house: House) -> None:
    house.start(SLEEPER)
    first = house.pid(SLEEPER)
    house.crash(SLEEPER)
    eventually(lambda: house.run(SLEEPER).restarts == 1 and house.runs(SLEEPER), "started again")
    run = house.run(SLEEPER)
    assert run.pid != first
    assert run.last_end == "by SIGKILL"
    assert run.ended_at is not None
    assert run.again_at is None, "it runs"


def test_a_program_that_was_stopped_stays_stopped_until_it_is_started(house: House) -> None:
    house.start(SLEEPER)
    house.start(OTHER)
    house.stop(SLEEPER)
    house.crash(OTHER)
    eventually(lambda: house.run(OTHER).restarts == 1, "the supervisor has looked at all orders again")
    assert not house.runs(SLEEPER)
    house.start(SLEEPER)
    assert house.runs(SLEEPER)
    assert house.run(SLEEPER).restarts == 0, "an operator's start is no restart"


def test_a_stop_and_a_start_at_once_are_no_crash(house: House) -> None:
    house.start(SLEEPER)
    for _ in range(20):
        house.stop(SLEEPER)
        house.start(SLEEPER)
        assert house.run(SLEEPER).restarts == 0


def test_what_does_not_run_cannot_be_stopped_and_what_runs_is_not_started_twice(house: House) -> None:
    with pytest.raises(LabError, match="does not run"):
        house.stop(SLEEPER)
    house.start(SLEEPER)
    with pytest.raises(LabError, match="runs already"):
        house.start(SLEEPER)


def test_how_a_program_ended_is_told_and_when_it_is_started_again(house: House) -> None:
    failing = Program("failing", "here", ("sh", "-c", "exit 3"))
    house.start(failing)
    eventually(lambda: house.run(failing).last_end == "with status 3", "its end is seen")
    eventually(lambda: house.run(failing).restarts >= 2, "it is tried again")
    eventually(lambda: house.run(failing).again_at is not None, "it waits for the next start")
    house.stop(failing)


def test_the_pause_before_a_start_grows_with_every_short_life_and_stays_bounded() -> None:
    pauses = [supervisor.pause(short_lives) for short_lives in range(2000)]
    assert pauses[:7] == [0.5, 0.5, 1, 2, 4, 8, 10]
    assert set(pauses[7:]) == {10}


def test_what_a_killed_supervisor_has_started_goes_on_and_the_next_one_takes_over(house: House) -> None:
    house.start(SLEEPER)
    first = house.pid(SLEEPER)
    house.crash(house.supervisor)
    with pytest.raises(LabError, match="supervisor does not run"):
        house.start(OTHER)
    house.begin()
    house.start(OTHER)
    assert house.pid(SLEEPER) == first
    house.crash(SLEEPER)
    eventually(lambda: house.run(SLEEPER).restarts == 1 and house.runs(SLEEPER), "the next one starts it again")


def test_a_program_starts_with_the_doors_socket_only_if_it_takes_it_and_with_no_signal_blocked(house: House) -> None:
    show = ("sh", "-c", "readlink /proc/self/fd/3 || echo none; grep SigBlk /proc/self/status; sleep 600")
    with_door, without = Program("with", "here", show, takes_door=True), Program("without", "here", show)
    for program, third in ((with_door, "socket:"), (without, "none")):
        house.start(program)
        eventually(lambda: "SigBlk" in processes.output(house.state, program), "it has printed")  # noqa: B023
        said = processes.output(house.state, program)
        assert said.startswith(third)
        assert said.split()[-1] == "0" * 16


def test_the_supervisor_ends_when_its_lab_is_gone(house: House) -> None:
    (house.state.directory / "lab.json").unlink()
    eventually(lambda: not house.runs(house.supervisor), "it has ended")
