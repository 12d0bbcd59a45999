"""A thousand seeds of creating and deleting, with everything going wrong that can."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from simulation.faults import Fault
from simulation.world import Outcome, run_seed

SEEDS = 1000
REPEATED = (3, 7, 11)
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    found = []
    for seed in range(SEEDS):
        outcome = run_seed(seed)
        if outcome.violation is not None:
            pytest.fail(f"{outcome.story.text()}\n\nseed {seed}: {outcome.violation}\nreplay: {outcome.replay}")
        found.append(outcome)
    return found


@pytest.mark.timeout(600)
def test_no_invariant_breaks_in_a_thousand_seeds(outcomes: list[Outcome]) -> None:
    assert len(outcomes) == SEEDS
    answers: Counter[str] = sum((outcome.answers for outcome in outcomes), Counter())
    assert min(answers[stem] for stem in ("vm.ready", "vm.failed", "vm.deleted")) > SEEDS


def test_every_kind_of_fault_has_happened(outcomes: list[Outcome]) -> None:
    counts: Counter[Fault] = sum((outcome.faults for outcome in outcomes), Counter())
    assert [kind for kind in Fault if not counts[kind]] == []


def test_without_faults_every_vm_that_can_be_is_made(outcomes: list[Outcome]) -> None:
    calm = [outcome for outcome in outcomes if outcome.is_calm]
    assert len(calm) > SEEDS / 20
    assert not any(outcome.faults for outcome in calm)
    assert {code for outcome in calm for code in outcome.failures} <= {
        "conflict",
        "invalid_request",
        "no_node_fits",
        "pool_exhausted",
        "address_taken",
        "address_quarantined",
    }


def test_the_same_seed_tells_the_same_story_whatever_the_hash_seed() -> None:
    told = {_stories(hash_seed) for hash_seed in ("1", "2")}
    assert len(told) == 1
    assert told == {"\n".join(run_seed(seed).story.text() for seed in REPEATED)}


def _stories(hash_seed: str) -> str:
    words = f"from simulation.world import run_seed\nfor seed in {REPEATED}: print(run_seed(seed).story.text())"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(TESTS)}
    done = subprocess.run([sys.executable, "-c", words], env=environment, check=True, capture_output=True, text=True)
    return done.stdout.rstrip("\n")
