"""The lab's supervisor: starts what was ordered, and starts it again when it ends, like systemd's `Restart=always`.

One process for each lab, in the namespace of its control host. It ends with the lab; when it is killed, what it has
started goes on, and the next one takes over.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vmfabric.lab import processes, supervision
from vmfabric.lab.processes import Program, Run
from vmfabric.lab.state import State
from vmfabric.lab.supervision import Order

DOOR = 3
"""The descriptor of the socket that listens outside of the lab."""
SHORT_LIFE = 30.0
"""A program that ran for fewer seconds than this waits longer and longer for its next start."""

_PAUSES = (0.5, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0)
_LOOK_SECONDS = 0.5
"""Processes that an earlier supervisor has started are not this one's children: it has to look whether they live."""

log = logging.getLogger(__name__)


def pause(short_lives: int) -> float:
    """Seconds until the next start, after so many lives in a row that were short."""
    return _PAUSES[min(short_lives, len(_PAUSES) - 1)]


@dataclass(slots=True)
class _Watched:
    """A program that was started, from its start until its order is taken back and it has ended."""

    program: Program
    run: Run
    is_child: bool
    began: float
    """time.monotonic()."""
    short_lives: int = 0
    due: float | None = None
    """When it is to be started again (time.monotonic()); None while it runs."""


class Supervisor:
    """Compares what was ordered with what runs."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._watched: dict[str, _Watched] = {}

    def look(self) -> float:
        """Start what should run and does not. Gives the seconds until it has to look again, if nothing happens."""
        for watched, how in [*self._children_that_ended(), *self._others_that_ended()]:
            self._note_end(watched, how)
        ordered = {order.program.name: order for order in supervision.orders(self._state)}
        for name in [name for name, one in self._watched.items() if one.due is not None and name not in ordered]:
            del self._watched[name]
        for name, order in ordered.items():
            self._serve(order, self._watched.get(name))
        dues = [one.due - time.monotonic() for one in self._watched.values() if one.due is not None]
        return max(0.0, min([_LOOK_SECONDS, *dues]))

    def _serve(self, order: Order, watched: _Watched | None) -> None:
        if watched is None and self._take_over(order):
            return
        if watched is None or (watched.due is not None and watched.run.order != order.number):
            self._start(order, restarts=0, short_lives=0)
        elif watched.due is not None and watched.due <= time.monotonic():
            self._start(order, watched.run.restarts + 1, watched.short_lives, watched.run)

    def _take_over(self, order: Order) -> bool:
        run = processes.last_run(self._state, order.program)
        if run is None or run.order != order.number:
            return False
        self._watched[order.program.name] = _Watched(order.program, run, is_child=False, began=time.monotonic())
        return True

    def _start(self, order: Order, restarts: int, short_lives: int, last: Run | None = None) -> None:
        program = order.program
        run = processes.spawn(self._state, program, inherit=DOOR if program.takes_door else None)
        run.order, run.restarts = order.number, restarts
        if last is not None:
            run.last_end, run.ended_at = last.last_end, last.ended_at
        self._watched[program.name] = _Watched(program, run, True, time.monotonic(), short_lives)
        processes.write(self._state, program, run)
        log.info("%s started as %d%s", program.name, run.pid, f", restart {restarts}" if restarts else "")
        if not supervision.is_ordered(self._state, program):
            os.kill(run.pid, program.ends_by)  # taken back meanwhile, by a command that may not have seen it start

    def _children_that_ended(self) -> Iterator[tuple[_Watched, str]]:
        by_pid = {one.run.pid: one for one in self._watched.values() if one.is_child and one.due is None}
        while by_pid:
            try:
                number, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if number == 0:
                return
            if number in by_pid:
                yield by_pid[number], _in_words(os.waitstatus_to_exitcode(status))

    def _others_that_ended(self) -> Iterator[tuple[_Watched, str]]:
        for one in self._watched.values():
            if not one.is_child and one.due is None and not processes.is_alive(one.run):
                yield one, "unseen, while the supervisor was away or not its parent"

    def _note_end(self, watched: _Watched, how: str) -> None:
        run, now = watched.run, time.monotonic()
        watched.short_lives = watched.short_lives + 1 if now - watched.began < SHORT_LIFE else 0
        wait = pause(watched.short_lives)
        watched.due = now + wait
        run.last_end, run.ended_at = how, datetime.now(UTC)
        is_ordered = supervision.is_ordered(self._state, watched.program)
        run.again_at = run.ended_at + timedelta(seconds=wait) if is_ordered else None
        processes.write(self._state, watched.program, run)
        log.info("%s ended %s; %s", watched.program.name, how, f"again in {wait} s" if is_ordered else "as ordered")


def _in_words(code: int) -> str:
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"


def main() -> None:
    """Run until SIGTERM, or until the lab is gone."""
    os.set_inheritable(DOOR, False)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    state = State(Path(sys.argv[1]))
    supervisor = Supervisor(state)
    while state.record() is not None:
        try:
            wait = supervisor.look()
        except OSError:  # no process or no file could be made, just now
            log.exception("hindered")
            wait = _LOOK_SECONDS
        received = signal.sigtimedwait(supervision.SIGNALS, wait)
        if received is not None and received.si_signo in {signal.SIGTERM, signal.SIGINT}:
            return


if __name__ == "__main__":
    main()
