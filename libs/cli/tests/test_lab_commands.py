"""The commands of the lab, on a data centre without services."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmfabric.lab import faults, making, namespaces, processes
from vmfabric.lab.lab import Lab
from vmfabric.lab.state import DIRECTORY_VARIABLE, State
from vmfabric.lab.testing import own_state, own_topology
from vmfabric.lab.topology import Topology

pytestmark = pytest.mark.lab


def eventually(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def start(state: State, *arguments: str) -> subprocess.Popen[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("VMFABRIC_")}
    return subprocess.Popen(
        [sys.executable, "-m", "vmfabric.cli", *arguments],
        env={**own, DIRECTORY_VARIABLE: str(state.directory), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(lab: Lab, *arguments: str) -> tuple[int, str]:
    command = start(lab.state, *arguments)
    said, _ = command.communicate(timeout=60)
    return command.returncode, said


def file_of(topology: Topology, directory: Path) -> str:
    path = directory / "topology.yaml"
    path.write_text(topology.model_dump_json())  # which is YAML too
    return str(path)


@pytest.fixture(scope="module")
def data_centre() -> Iterator[Lab]:
    """For tests that put right again what they change."""
    with own_state() as state:
        yield making.up(own_topology("c"), state, with_services=False)


def test_status_names_what_does_not_run_with_the_log_to_read_and_what_to_do(data_centre: Lab) -> None:
    code, said = run(data_centre, "lab", "status")
    assert code == 1
    assert "scheduler!" in said
    assert f"! control/scheduler does not run; log {data_centre.state.logs}/control-scheduler.log" in said
    assert "! should run and does not: its log says why; `./vmfabric lab restart NAME` starts it now" in said
    assert "bgpd!" not in said


def test_what_was_stopped_is_shown_as_stopped_and_can_be_started(data_centre: Lab) -> None:
    assert run(data_centre, "lab", "stop", "nats")[0] == 0
    said = run(data_centre, "lab", "status")[1]
    assert "nats(stopped)" in said
    assert "control/nats was stopped; `./vmfabric lab start control/nats` starts it" in said
    assert run(data_centre, "lab", "start", "control/nats")[0] == 0
    assert "stopped" not in run(data_centre, "lab", "status")[1]


def test_a_restart_gives_another_process_whether_it_ran_or_not(data_centre: Lab) -> None:
    nats = data_centre.program("nats", "control")
    first = processes.pid(data_centre.state, nats)
    assert run(data_centre, "lab", "restart", "nats")[0] == 0
    second = processes.pid(data_centre.state, nats)
    faults.kill_service(data_centre, "nats")
    assert run(data_centre, "lab", "restart", "nats")[0] == 0
    third = processes.pid(data_centre.state, nats)
    assert len({first, second, third, None}) == 4


def test_status_counts_restarts_and_says_how_it_ended_the_last_time(data_centre: Lab) -> None:
    run(data_centre, "lab", "restart", "postgres")
    faults.crash_service(data_centre, "postgres")
    again = "+1 control/postgres was started again once: ended by SIGKILL at "
    eventually(lambda: again in run(data_centre, "lab", "status")[1], again)
    assert "postgres(+1)" in run(data_centre, "lab", "status")[1]


@pytest.mark.parametrize("command", [["lab", "up"], ["demo"]])
def test_a_lab_that_is_up_is_left_alone_and_said_to_be_unwell_if_it_is(
    data_centre: Lab, tmp_path: Path, command: list[str]
) -> None:
    code, said = run(data_centre, *command, "-t", file_of(data_centre.topology, tmp_path))
    assert code == 1
    assert "is up, but unwell: control/scheduler, control/ipam, n1/node-agent" in said
    assert "./vmfabric lab status" in said
    assert Lab.find(data_centre.state).is_complete


def test_a_command_on_a_host_has_its_output_and_its_exit_code(data_centre: Lab) -> None:
    assert run(data_centre, "lab", "exec", "core", "--", "sh", "-c", "hostname >/dev/null; echo hi; exit 7") == (
        7,
        "hi\n",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_takes_its_lab_down(tmp_path: Path, number: signal.Signals) -> None:
    topology = own_topology("d")
    with own_state() as state:
        demo = start(state, "demo", "-t", file_of(topology, tmp_path))
        eventually(lambda: namespaces.exists(topology.namespace("core")), "the demo has made something")
        demo.send_signal(number)
        said, _ = demo.communicate(timeout=60)
        assert demo.returncode == 130
        assert "interrupted" in said
        assert "taking the lab down" in said
        assert state.record() is None
    assert not any(namespaces.exists(name) for name in topology.namespaces())


def test_an_interrupted_lab_up_says_what_is_left_and_how_it_is_removed(tmp_path: Path) -> None:
    topology = own_topology("u")
    with own_state() as state:
        up = start(state, "lab", "up", "-t", file_of(topology, tmp_path))
        eventually(lambda: namespaces.exists(topology.namespace("core")), "something is made")
        up.send_signal(signal.SIGINT)
        said, _ = up.communicate(timeout=60)
        assert up.returncode == 130
        assert "`./vmfabric lab down` removes what is there" in said
        half_made = run(Lab.find(state), "lab", "status")
        assert half_made[0] == 1
        assert "half made: `./vmfabric lab up` makes it anew" in half_made[1]
