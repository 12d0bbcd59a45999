"""Thousands of seeds of creating, moving and deleting, with everything going wrong that can."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.conftest import SEEDS
from simulation.faults import Fault
from simulation.many import InBackground, Tally
from simulation.world import replay, run_seed

REPEATED = (3, 7, 11)
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tally(seeds_beside: InBackground) -> Tally:
    tally = Tally()
    for part in seeds_beside.tallies():
        tally.add(part)
        for seed, violation in part.violations.items():
            pytest.fail(f"{run_seed(seed).story.text()}\n\nseed {seed}: {violation}\nreplay: {replay(seed)}")
    return tally


@pytest.mark.timeout(900)
def test_no_invariant_breaks_in_thousands_of_seeds(tally: Tally) -> None:
    assert tally.seeds == SEEDS
    assert min(tally.answers[stem] for stem in ("vm.ready", "vm.failed", "vm.deleted")) > SEEDS
    assert tally.answers["vm.migrated"] > SEEDS / 4


@pytest.mark.timeout(900)
def test_every_kind_of_fault_has_happened(tally: Tally) -> None:
    assert [kind for kind in Fault if not tally.faults[kind]] == []


@pytest.mark.timeout(900)
def test_without_faults_every_vm_that_can_be_is_made(tally: Tally) -> None:
    assert tally.calm > SEEDS / 20
    assert not tally.faults_when_calm
    assert tally.failures_when_calm <= {
        "conflict",
        "invalid_request",
        "no_node_fits",
        "pool_exhausted",
        "address_taken",
        "address_quarantined",
        "address_excluded",  # an address that was chosen, of another node's range
        "cannot_migrate",
        "unknown_vm",
        "cancelled",
        "step_timed_out",  # a guest that does not come to the target of its migration
    }


def test_the_same_seed_tells_the_same_story_whatever_the_hash_seed() -> None:
    told = {_stories(hash_seed) for hash_seed in ("1", "2", "3")}
    assert len(told) == 1
    assert told == {"\n".join(run_seed(seed).story.text() for seed in REPEATED)}


def _stories(hash_seed: str) -> str:
    words = f"from simulation.world import run_seed\nfor seed in {REPEATED}: print(run_seed(seed).story.text())"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(TESTS)}
    done = subprocess.run([sys.executable, "-c", words], env=environment, check=True, capture_output=True, text=True)
    return done.stdout.rstrip("\n")
