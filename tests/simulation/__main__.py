"""`./vmfabric simulate --seeds 1000`, or `--seed 42`, which tells its story."""

import argparse
import sys
import time

from simulation.faults import Fault
from simulation.many import Tally, run_seeds
from simulation.world import replay, run_seed


def main() -> int:
    """1 when an invariant did not hold."""
    parser = argparse.ArgumentParser(prog="./vmfabric simulate", description=__doc__)
    parser.add_argument("--seed", type=int, help="live through this one, and tell its story")
    parser.add_argument("--seeds", type=int, default=100, help="how many; the first is 0")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    options = parser.parse_args()
    if options.seed is not None:
        return _one(options.seed)
    return _many(range(options.first, options.first + options.seeds))


def _one(seed: int) -> int:
    outcome = run_seed(seed)
    sys.stdout.write(f"{outcome.story.text()}\n\nseed {seed}: {outcome.violation or 'every invariant held'}\n")
    return int(outcome.violation is not None)


def _many(seeds: range) -> int:
    begin = time.monotonic()
    tally = Tally()
    for part in run_seeds(seeds):
        for seed, violation in part.violations.items():
            sys.stdout.write(f"seed {seed}: {violation}\n  {replay(seed)}\n")
        sys.stdout.flush()
        tally.add(part)
    for kind in Fault:
        sys.stdout.write(f"{tally.faults[kind]:8} x {kind}\n")
    for answer, times in sorted(tally.answers.items()):
        sys.stdout.write(f"{times:8} x {answer}\n")
    sys.stdout.write(f"{tally.seeds} seeds in {time.monotonic() - begin:.1f} s, {len(tally.violations)} failed\n")
    return int(bool(tally.violations))


if __name__ == "__main__":
    raise SystemExit(main())
