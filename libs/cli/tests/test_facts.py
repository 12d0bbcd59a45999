"""Events as a person reads them."""

import json
from pathlib import Path

import pytest

from vmfabric.cli.facts import line
from vmfabric.cli.screen import duration
from vmfabric.contract.iface import IfaceDrifted, IfaceRemoved
from vmfabric.contract.ip import IpReleased
from vmfabric.contract.model import Event
from vmfabric.contract.vm import VmDeleted, VmRequested
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
    assert "placed 2 ms, allocated 3 ms, wired 20 ms, announced 180 ms" in text


def test_a_migration_that_nothing_announced_is_told_without_that_step() -> None:
    sample = json.loads((SAMPLES / "vm.migrated.json").read_text())
    del sample["body"]["steps_ms"]["announced"]
    text = line("12:00:00.000", sample["subject"], json.dumps(sample["body"]).encode()).plain
    assert "running 88 ms, left 1.62 s" in text


def test_a_message_that_nobody_can_read_is_shown_without_control_characters() -> None:
    text = line("12:00:00.000", "dead.vm.requested", b"\x1b[2J\nnot json\xff").plain
    assert "\x1b" not in text
    assert "\n" not in text
    assert "not json" in text


def of(event: Event, headers: dict[str, str] | None = None) -> str:
    return line("12:00:00.000", event.subject(), event.model_dump_json().encode(), headers).plain


def test_a_dead_letter_is_shown_with_its_reason_and_where_it_was_sent() -> None:
    text = line("12:00:00.000", "dead.vm.requested", b"{", {"vmfabric-reason": "not JSON: \x1b[2J"}).plain
    assert text.startswith("12:00:00.000  dead  ")
    assert " vm.requested " in text
    assert "not JSON: \\x1b[2J" in text
    assert text.endswith("  {")


def test_a_long_name_or_subject_does_not_move_the_columns_and_can_still_be_read() -> None:
    name = "a-vm-with-a-name-of-sixty-three-characters-which-is-the-longest"
    assert f"(msk/{name}, {name})" in of(IfaceRemoved(cluster="msk", vm=name, node=name, generation=1))
    released = [
        of(IpReleased(cluster="msk", vm=vm, node="n1", generation=1, addresses=())).index("it held none")
        for vm in ("vm1", name)
    ]
    assert released[0] == released[1]
    dead = [line("12:00:00.000", subject, b"BODY").plain.index("BODY") for subject in ("dead.x", "dead." + "x" * 500)]
    assert dead[0] == dead[1]


def test_of_many_changes_the_first_three_are_shown_and_the_rest_counted() -> None:
    repaired = tuple(f"change {number} {'x' * 300}" for number in range(17))
    text = of(IfaceDrifted(cluster="msk", node="n1", vms=tuple(f"vm{n}" for n in range(9)), repaired=repaired))
    assert "put back for vm0, vm1, vm2 and 6 more: change 0" in text
    assert "change 2" in text
    assert "change 3" not in text
    assert text.endswith("… and 14 more")
    assert len(text) < 500


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (IpReleased(cluster="msk", vm="vm1", node="n1", generation=1, addresses=()), "it held none"),
        (VmDeleted(cluster="msk", vm="vm1"), "there was no such VM"),
        (VmDeleted(cluster="msk", vm="vm1", generation=7), "nothing of it is left"),
        (VmRequested(cluster="msk", vm="vm1", cpu=2, memory_mb=2048, disk_gb=20), "2 CPU, 2 GiB memory, 20 GiB disk"),
        (VmRequested(cluster="msk", vm="vm1", cpu=2, memory_mb=2000, disk_gb=20), "2000 MiB memory"),
    ],
)
def test_no_more_is_claimed_than_is_known(event: Event, words: str) -> None:
    assert words in of(event)
    assert "quarantine" not in of(event)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0004, "0 ms"), (0.08, "80 ms"), (0.9994, "999 ms"), (0.9996, "1.00 s"), (12.345, "12.35 s")],
)
def test_a_second_and_more_is_told_in_seconds_and_less_in_milliseconds(seconds: float, text: str) -> None:
    assert duration(seconds) == text
