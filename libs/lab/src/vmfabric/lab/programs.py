"""Running a program to its end."""

import subprocess
from collections.abc import Sequence

from vmfabric.lab.errors import LabError

DEADLINE = 60.0
"""Seconds that a program of the lab may take, unless it is a download."""

ENDS_WITH_CALLER = ("setpriv", "--pdeathsig", "KILL")
"""Before a command: a program that outlived its killed caller would make things while another one removes them."""


def run(*command: str, stdin: str | None = None, seconds: float = DEADLINE) -> str:
    """What the program printed. LabError with its words when it fails or takes longer than so many seconds."""
    try:
        done = subprocess.run(
            [*ENDS_WITH_CALLER, *command],
            input=stdin or "",
            capture_output=True,
            process_group=0,  # a Ctrl-C is for the command itself, which then knows what it has made
            text=True,
            timeout=seconds,
            check=False,
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{' '.join(command)}` did not end within {seconds:.0f} s") from error
    if done.returncode != 0:
        raise LabError(_failure(command, done.returncode, done.stderr or done.stdout))
    return done.stdout


def _failure(command: Sequence[str], status: int, words: str) -> str:
    return f"`{' '.join(command)}` ended with status {status}: {words.strip() or 'and said nothing'}"
