"""The terminal: one console for results, one for errors, and how times and lengths of time look."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console


class _Terminal(Console):
    def on_broken_pipe(self) -> None:
        """Nobody reads any more (`| head -1`): the same as Ctrl-C, so whoever cleans up then does so now."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a script
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)


console = _Terminal(highlight=False, emoji=False)  # an IPv6 address has words between colons
errors = Console(stderr=True, highlight=False, emoji=False)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Show that something is being done, then that it is done and how long it took."""
    started = time.monotonic()
    try:
        with console.status(what, spinner="dots"):
            yield
    except BaseException:
        console.print(f"[bold red]✗[/] {what}")
        raise
    console.print(f"[green]✓[/] {what}[dim] {duration(time.monotonic() - started)}[/]")


def duration(seconds: float) -> str:
    """A length of time, as people read it: `8 ms`, `1.23 s`."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.2f} s"


def clock(moment: datetime) -> str:
    """The time of day here."""
    return moment.astimezone().strftime("%H:%M:%S")
