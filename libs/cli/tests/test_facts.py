"""Events as a person reads them."""

import json
from pathlib import Path

import pytest

from vmfabric.cli.facts import line
from vmfabric.lab.client import KINDS

SAMPLES = Path(__file__).parents[2] / "contract" / "tests" / "samples"


def shown(stem: str) -> str:
    sample = json.loads((SAMPLES / f"{stem}.json").read_text())
    return line("12:00:00.000", sample["subject"], json.dumps(sample["body"]).encode()).plain


@pytest.mark.parametrize("stem", sorted(KINDS))
def test_every_event_is_one_line_with_its_time_and_subject(stem: str) -> None:
    text = shown(stem)
    assert text.startswith(f"12:00:00.000  {stem}")
    assert "\n" not in text
    assert "msk" in text


def test_the_essence_of_a_ready_vm_is_its_addresses_and_the_time_of_each_step() -> None:
    text = shown("vm.ready")
    assert "198.51.100.0, 2001:db8:100::" in text
    assert "placed 2 allocated 3 wired 20 announced 180 ms" in text


def test_a_message_that_nobody_can_read_is_shown_without_control_characters() -> None:
    text = line("12:00:00.000", "dead.vm.requested", b"\x1b[2J\nnot json\xff").plain
    assert "\x1b" not in text
    assert "\n" not in text
    assert "not json" in text
