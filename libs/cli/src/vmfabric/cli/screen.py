"""The terminal: one console for results, one for errors, and steps that say how long they took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


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
    """A length of time, as people read it."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
