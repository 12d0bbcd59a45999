"""Many seeds, on every core."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from simulation.faults import Fault
from simulation.world import Outcome, run_seed

_AT_A_TIME = 20


@dataclass
class Tally:
    """What came of many seeds."""

    seeds: int = 0
    calm: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    faults_when_calm: Counter[Fault] = field(default_factory=Counter)
    failures_when_calm: set[str] = field(default_factory=set)
    violations: dict[int, str] = field(default_factory=dict)
    """By seed."""

    def count(self, outcome: Outcome) -> None:
        """One more."""
        self.seeds += 1
        self.faults += outcome.faults
        self.answers += outcome.answers
        if outcome.is_calm:
            self.calm += 1
            self.faults_when_calm += outcome.faults
            self.failures_when_calm |= outcome.failures
        if outcome.violation is not None:
            self.violations[outcome.seed] = outcome.violation

    def add(self, other: "Tally") -> None:
        """Those of another one too."""
        self.seeds += other.seeds
        self.calm += other.calm
        self.faults += other.faults
        self.answers += other.answers
        self.faults_when_calm += other.faults_when_calm
        self.failures_when_calm |= other.failures_when_calm
        self.violations |= other.violations


def run_seeds(seeds: range) -> Iterator[Tally]:
    """What came of a few seeds, and then of a few more."""
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        yield from pool.map(_run, _parts(seeds))


class InBackground:
    """Many seeds while something else is done: they run when nothing else wants a core (SCHED_IDLE, sched(7))."""

    def __init__(self, seeds: range) -> None:
        self._pool = ProcessPoolExecutor(max_workers=os.cpu_count(), initializer=_yield_to_all)
        self._parts = [self._pool.submit(_run, part) for part in _parts(seeds)]

    def tallies(self) -> Iterator[Tally]:
        """As `run_seeds`."""
        for part in self._parts:
            yield part.result()

    def end(self) -> None:
        """What is not done yet is not done any more."""
        self._pool.shutdown(cancel_futures=True)


def _yield_to_all() -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _parts(seeds: range) -> list[range]:
    return [seeds[start : start + _AT_A_TIME] for start in range(0, len(seeds), _AT_A_TIME)]


def _run(seeds: Iterable[int]) -> Tally:
    tally = Tally()
    for seed in seeds:
        tally.count(run_seed(seed))
    return tally
