"""The node's dnsmasq: one process, which outlives the agent, and its files.

A guest may boot or ask again while the agent restarts, so dnsmasq is a daemon of its own, and the next agent finds it
by its pid file. It is ended before its configuration is written, so the one that runs has read what is in the file.
"""

import os
import select
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

_PROGRAM = "dnsmasq"
_SECONDS = 5.0
"""For a start, which takes some milliseconds, and for an end."""


class NotStartedError(Exception):
    """Why there is no dnsmasq."""


class Dnsmasq:
    """Its calls block."""

    def __init__(self, directory: Path) -> None:
        self._configuration = directory.resolve() / "node-agent.dnsmasq.conf"
        self._pid_file = self._configuration.with_suffix(".pid")
        self._command = [_PROGRAM, f"--conf-file={self._configuration}", f"--pid-file={self._pid_file}"]

    def serves(self) -> str | None:
        """The configuration of the one that runs; None when none does."""
        pid = self._pid()
        try:
            return self._configuration.read_text() if pid is not None and self._is_running(pid) else None
        except FileNotFoundError:
            return None

    def start(self, configuration: str) -> None:
        """In place of the one that runs. NotStartedError when it says that it cannot."""
        self._end()
        self._write(configuration)
        try:
            started = subprocess.run(self._command, check=False, capture_output=True, text=True, timeout=_SECONDS)
        except FileNotFoundError as error:
            raise NotStartedError("it is not installed; Debian has it in dnsmasq-base") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotStartedError(str(error)) from error
        if started.returncode != 0:
            raise NotStartedError(started.stderr.strip() or f"it ended with {started.returncode}")

    def remove(self) -> None:
        """No process, no file."""
        self._end()
        self._configuration.unlink(missing_ok=True)
        self._pid_file.unlink(missing_ok=True)

    def _pid(self) -> int | None:
        try:
            return int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _is_running(self, pid: int) -> bool:
        """The number may be another's by now, who has another command line."""
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return words[:-1] == [word.encode() for word in self._command]

    def _write(self, configuration: str) -> None:
        draft = self._configuration.with_suffix(".new")
        try:
            draft.write_text(configuration)
            draft.replace(self._configuration)
        except OSError as error:
            raise NotStartedError(f"its configuration cannot be written: {error}") from error

    def _end(self) -> None:
        pid = self._pid()
        if pid is None or not self._is_running(pid):
            return
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            # Once it is held, the number cannot become another's.
            if self._is_running(pid):
                _end(handle)
        finally:
            os.close(handle)


def _end(handle: int) -> None:
    ended = select.poll()
    ended.register(handle, select.POLLIN)
    with suppress(ProcessLookupError):  # ended by itself meanwhile
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(handle, number)
            if ended.poll(_SECONDS * 1000):
                return
