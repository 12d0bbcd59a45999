"""What is used wrongly is told in a sentence, with exit code 2 for a wrong command line and 1 for anything else."""

import subprocess
import sys
from pathlib import Path

import pytest

from vmfabric.cli import main as command_line
from vmfabric.lab.state import DIRECTORY_VARIABLE, Record, State
from vmfabric.lab.topology import load


class Run:
    """One command, in this process: an exception that nobody tells of fails the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str]:
        self._monkeypatch.setattr(sys, "argv", ["vmfabric", *arguments])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        said = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, " ".join((said.out + said.err).replace("│", " ").split())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "lab"))
    monkeypatch.setenv("VMFABRIC_NATS_URL", "nats://127.0.0.1:1")
    return Run(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lab", "dwn"], "Did you mean 'down'?"),
        (["lab", "up", "-t", "/nonexist"], "file '/nonexist' does not exist"),
        (["lab", "up", "-t", "/tmp"], "file '/tmp' is a directory"),
        (["demo", "-t", "/nonexist"], "file '/nonexist' does not exist"),
        (["demo", "--vms", "0"], "should be greater than or equal to 1"),
        (["lab", "exec", "n1"], "Missing argument 'command'"),
        (["apply"], "Missing option '--file'"),
        (["apply", "-f", "/nonexist"], "file '/nonexist' does not exist"),
        (["publish", "foo.bar", "{}"], "nobody keeps 'foo.bar'; what can be requested is vm.requested"),
        (["publish", "vm.requested.>", "{}"], "nobody keeps 'vm.requested.>'"),
        (["publish", "vm.requested", "{"], "the body is not JSON"),
    ],
)
def test_a_wrong_command_line_is_told_in_a_sentence(run: Run, arguments: list[str], sentence: str) -> None:
    code, said = run(*arguments)
    assert sentence in said
    assert code == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lab", "status"], "there is no lab in"),
        (["lab", "exec", "n1", "--", "true"], "there is no lab in"),
        (["lab", "stop", "n1/node-agent"], "there is no lab in"),
        (["lab", "dump", "/tmp/nowhere"], "there is no lab in"),
        (["lab", "up", "-t", "/bin/true"], "/bin/true is not text"),
        (["apply", "-f", "/bin/true"], "/bin/true is not text"),
        (["watch"], "no NATS server answers at nats://127.0.0.1:1"),
        (["watch", "--table"], "no NATS server answers at nats://127.0.0.1:1"),
        (["publish", "vm.requested", "{}"], "no NATS server answers at nats://127.0.0.1:1"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(run: Run, arguments: list[str], sentence: str) -> None:
    code, said = run(*arguments)
    assert sentence in said
    assert code == 1


def test_an_empty_file_is_not_applied_in_silence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    code, said = run("apply", "-f", str(tmp_path / "empty.yaml"))
    assert (code, "empty.yaml has no document in it; nothing is applied" in said) == (1, True)


def test_no_lab_to_take_down_is_said_and_nothing_else(run: Run, tmp_path: Path) -> None:
    assert run("lab", "down") == (0, f"there is no lab in {tmp_path / 'lab'}")


def test_a_lab_of_another_version_is_told_in_a_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "lab.json").write_text('{"topology": {"racks": 3}}')
    code, said = run("lab", "status")
    assert (code, "was written by another version" in said) == (1, True)


def test_the_bus_is_that_of_the_lab_unless_the_operator_says_another(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lab").mkdir()
    State(tmp_path / "lab").write(Record(topology=load(None).model_copy(update={"port": 2})))
    assert "at nats://127.0.0.1:1;" in run("watch")[1]
    monkeypatch.delenv("VMFABRIC_NATS_URL")
    assert "at nats://127.0.0.1:2;" in run("watch")[1]


def test_output_that_nobody_reads_is_no_error(tmp_path: Path) -> None:
    for arguments in (["--help"], ["lab", "down"]):
        command = subprocess.Popen(
            [sys.executable, "-m", "vmfabric.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={DIRECTORY_VARIABLE: str(tmp_path / "lab")},
        )
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()
        assert command.stderr.read() == b""
        command.wait(10)


@pytest.mark.parametrize("module", ["nats", "asyncpg", "structlog", "vmfabric.runtime"])
def test_lab_exec_starts_without_what_it_does_not_need(module: str) -> None:
    program = (
        "import sys; from vmfabric.cli import main, on_demand; main._LAB.commands['exec'];"
        f"assert 'vmfabric.lab.lab' in sys.modules; assert {module!r} not in sys.modules, 'imported'"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
