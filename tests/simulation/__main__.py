"""`python -m simulation --seeds 1000` or `--seed 42`, which tells its story."""

import argparse
import sys
import time
from collections import Counter

from simulation.faults import Fault
from simulation.world import run_seed


def main() -> int:
    """1 when an invariant did not hold; its story is printed then."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="live through this one, and tell its story")
    parser.add_argument("--seeds", type=int, default=100, help="how many; the first is 0")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    options = parser.parse_args()
    return _one(options.seed) if options.seed is not None else _many(options.first, options.seeds)


def _one(seed: int) -> int:
    outcome = run_seed(seed)
    sys.stdout.write(f"{outcome.story.text()}\n\nseed {seed}: {outcome.violation or 'every invariant held'}\n")
    return int(outcome.violation is not None)


def _many(first: int, count: int) -> int:
    begin = time.monotonic()
    faults: Counter[Fault] = Counter()
    answers: Counter[str] = Counter()
    failed = []
    for seed in range(first, first + count):
        outcome = run_seed(seed)
        faults += outcome.faults
        answers += outcome.answers
        if outcome.violation is not None:
            failed.append(outcome)
            sys.stdout.write(f"seed {seed}: {outcome.violation}\n  {outcome.replay}\n")
            sys.stdout.flush()
    for kind in Fault:
        sys.stdout.write(f"{faults[kind]:8} x {kind}\n")
    for answer, times in sorted(answers.items()):
        sys.stdout.write(f"{times:8} x {answer}\n")
    sys.stdout.write(f"{count} seeds in {time.monotonic() - begin:.1f} s, {len(failed)} failed\n")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
