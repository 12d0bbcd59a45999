"""A VM moves to another node: what is wanted on both nodes at every moment, whatever is said and however often."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmfabric.contract.addresses import host_prefix
from vmfabric.contract.admin import VmPhase
from vmfabric.contract.cluster import ClusterSpec
from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.contract.errors import Code
from vmfabric.contract.guest import GuestRunning
from vmfabric.contract.model import Event
from vmfabric.contract.route import AnnouncedRoute
from vmfabric.contract.vm import VmDeleting, VmFailed, VmMigrated, VmMigrateRequested, VmMigrating
from vmfabric.scheduler.domain import lifecycle, migration, requests
from vmfabric.scheduler.domain.record import Stamp, VmRecord
from vmfabric.scheduler.domain.turn import Turn

from .builders import ADDRESS, START, the_facts
from .test_lifecycle import CLUSTER, PATIENCE, a_vm

SOURCE, TARGET, AGAIN = 7, 9, 11
"""The generations of the VM on either node."""
NODES = {SOURCE: "n1", TARGET: "n2", AGAIN: "n2"}
TARGET_ADDRESSES = (ip_address("10.0.0.2"), ip_address("fd00::2"))
ASKED = Stamp(START + timedelta(seconds=60), 5)


def a_ready_record(cluster: ClusterSpec = CLUSTER) -> VmRecord:
    record = a_vm(VmPhase.READY, cluster).record
    assert record is not None
    return record


@dataclass
class Migration:
    """A VM on its way from n1 to n2, and the bucket."""

    record: VmRecord | None = None
    cluster: ClusterSpec = CLUSTER
    now: datetime = ASKED.at
    bucket: dict[str, DesiredVm] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    story: list[tuple[Presence | None, Presence | None]] = field(default_factory=list)
    """What was wanted on n1 and on n2 after each turn, without repetitions."""

    def __post_init__(self) -> None:
        ready = a_ready_record(self.cluster)
        assert ready.desired is not None
        self.bucket[ready.node] = ready.desired
        self.take(
            migration.start(
                ready, ASKED, target="n2", addresses=TARGET_ADDRESSES, generation=TARGET, trace_id="1" * 32,
                now=self.now, patience=PATIENCE,
            )
        )  # fmt: skip

    def take(self, turn: Turn | None) -> None:
        if turn is None:
            return
        self.record = turn.record
        self.events += turn.events
        for key in turn.purges:
            self.bucket = {node: value for node, value in self.bucket.items() if value.key() != key}
        self.bucket |= {value.node: value for value in turn.puts}
        now = (self.presence("n1"), self.presence("n2"))
        if not self.story or self.story[-1] != now:
            self.story.append(now)

    def hears(self, stem: str, generation: int, *, preference: int = 100) -> None:
        if self.record is None:
            return
        fact = the_facts(generation, node=NODES[generation])[stem]
        if stem == "route.announced":
            route = AnnouncedRoute(
                prefix=host_prefix(ADDRESS), communities=(), local_preference=preference, reflectors=(ADDRESS,)
            )
            fact = fact.model_copy(update={"routes": (route,)})
        self.take(lifecycle.advance(self.record, fact, self.cluster, self.now, PATIENCE))

    def guest_runs(self, node: str = "n2", *, seconds: float = 1, of: int | None = None) -> None:
        """Said so many seconds after the migration was asked for, of a generation or of none."""
        if self.record is not None:
            said = GuestRunning(cluster="msk", vm=self.record.vm, node=node, generation=of)
            said_at = ASKED.at + timedelta(seconds=seconds)
            generation = AGAIN if self.phase() is VmPhase.RETURNING else TARGET
            self.take(
                migration.guest_runs(
                    self.record, said, said_at=said_at, generation=generation, now=self.now, patience=PATIENCE
                )
            )

    def waits(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        if self.record is not None:
            self.take(lifecycle.overdue(self.record, self.now, PATIENCE))

    def is_deleted(self) -> None:
        if self.record is not None:
            self.take(lifecycle.delete(self.record, Stamp(self.now, 6), self.now, PATIENCE))

    def says(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def phase(self) -> VmPhase | None:
        return self.record.phase if self.record else None

    def presence(self, node: str) -> Presence | None:
        value = self.bucket.get(node)
        return value.presence if value else None


def until(phase: VmPhase) -> Migration:
    """A migration that has come into this phase the usual way."""
    moving = Migration()
    while moving.phase() is not phase:
        match moving.phase():
            case VmPhase.PREPARING:
                moving.hears("iface.ready", TARGET)
            case VmPhase.MOVING:
                moving.guest_runs()
            case VmPhase.SWITCHING:
                moving.hears("route.announced", TARGET, preference=200)
            case VmPhase.LEAVING:
                moving.waits(1)
                moving.hears("route.withdrawn", SOURCE)
                moving.hears("iface.removed", SOURCE)
            case VmPhase.SETTLING:
                moving.hears("route.announced", TARGET)
            case other:
                raise AssertionError(f"{phase} is not on the way; now {other}")
    return moving


def test_the_new_node_is_announced_before_the_old_one_lets_go() -> None:
    moving = until(VmPhase.READY)
    assert moving.story == [
        (Presence.ROUTED, Presence.PREPARED),
        (Presence.FORWARDED, Presence.PREFERRED),
        (Presence.ABSENT, Presence.PREFERRED),
        (None, Presence.ROUTED),
    ]
    assert moving.record is not None
    assert (moving.record.node, moving.record.generation, moving.record.move) == ("n2", TARGET, None)
    (migrating,), (migrated,) = moving.says(VmMigrating), moving.says(VmMigrated)
    assert isinstance(migrated, VmMigrated)
    assert (migrated.source, migrated.node, migrated.generation) == ("n1", "n2", TARGET)
    assert migrating.model_dump()["generation"] == TARGET


def test_the_old_node_is_told_where_the_guest_went() -> None:
    moving = until(VmPhase.SWITCHING)
    assert moving.bucket["n1"].toward == TARGET_ADDRESSES
    assert moving.bucket["n1"].generation == SOURCE
    assert moving.bucket["n2"].toward == ()


def test_room_is_taken_on_both_nodes_until_the_source_has_let_go() -> None:
    nodes = {phase: until(phase).record for phase in (*migration.PHASES - {VmPhase.RETURNING}, VmPhase.READY)}
    held = {phase: record.nodes() for phase, record in nodes.items() if record is not None}
    both = frozenset({"n1", "n2"})
    assert held == {
        VmPhase.PREPARING: both, VmPhase.MOVING: both, VmPhase.SWITCHING: both, VmPhase.LEAVING: both,
        VmPhase.SETTLING: frozenset({"n2"}), VmPhase.READY: frozenset({"n2"}),
    }  # fmt: skip


def test_a_word_from_before_the_migration_does_not_move_the_route() -> None:
    moving = until(VmPhase.MOVING)
    moving.guest_runs(seconds=-5)
    moving.guest_runs("n1")
    assert moving.phase() is VmPhase.MOVING
    moving.guest_runs()
    assert moving.phase() is VmPhase.SWITCHING


def test_a_word_of_the_targets_generation_counts_whatever_the_clocks_say() -> None:
    moving = until(VmPhase.MOVING)
    moving.guest_runs(seconds=5, of=TARGET - 1)
    assert moving.phase() is VmPhase.MOVING, "that was an earlier stay"
    moving.guest_runs(seconds=-5, of=TARGET)
    assert moving.phase() is VmPhase.SWITCHING


def test_a_guest_may_run_before_its_interface_is_said_to_be_ready() -> None:
    moving = until(VmPhase.PREPARING)
    moving.guest_runs()
    assert moving.phase() is VmPhase.SWITCHING


def test_the_source_goes_on_forwarding_for_a_moment() -> None:
    moving = until(VmPhase.LEAVING)
    moving.waits(0.5)
    assert moving.presence("n1") is Presence.FORWARDED
    moving.waits(0.5)
    assert moving.presence("n1") is Presence.ABSENT


@pytest.mark.parametrize("first", ["iface.removed", "route.withdrawn"])
def test_a_source_that_has_let_go_of_half_is_waited_for(first: str) -> None:
    moving = until(VmPhase.LEAVING)
    moving.waits(1)
    moving.hears(first, SOURCE)
    moving.hears(first, SOURCE)
    assert (moving.phase(), moving.presence("n2")) == (VmPhase.LEAVING, Presence.PREFERRED)


def test_the_high_preference_of_the_switch_does_not_end_the_migration() -> None:
    moving = until(VmPhase.SETTLING)
    moving.hears("route.announced", TARGET, preference=200)
    assert moving.phase() is VmPhase.SETTLING


@pytest.mark.parametrize(("phase", "seconds"), [(VmPhase.PREPARING, 30), (VmPhase.MOVING, 600)])
def test_a_guest_that_does_not_come_leaves_the_vm_where_it_was(phase: VmPhase, seconds: float) -> None:
    moving = until(phase)
    before = moving.bucket["n1"]
    moving.waits(seconds)
    assert moving.phase() is VmPhase.RETURNING
    assert moving.presence("n2") is Presence.ABSENT
    assert not moving.says(VmFailed)
    moving.hears("iface.removed", TARGET)
    assert moving.bucket == {"n1": before}
    (failed,) = moving.says(VmFailed)
    assert isinstance(failed, VmFailed)
    assert (failed.step, failed.code, failed.generation) == ("migrate", Code.STEP_TIMED_OUT, SOURCE)
    assert "on n1 as before, nothing of it is left on n2" in failed.message
    assert moving.record is not None
    assert (moving.phase(), moving.record.node, moving.record.generation) == (VmPhase.READY, "n1", SOURCE)


def test_a_guest_that_shows_up_after_all_is_followed() -> None:
    moving = until(VmPhase.MOVING)
    moving.waits(600)
    moving.guest_runs(seconds=601)
    assert moving.phase() is VmPhase.SWITCHING
    assert (moving.presence("n1"), moving.presence("n2")) == (Presence.FORWARDED, Presence.PREFERRED)
    # What the target said, or will say, of letting go belongs to the past.
    moving.hears("iface.removed", TARGET)
    moving.hears("route.announced", TARGET, preference=200)
    assert moving.phase() is VmPhase.SWITCHING
    moving.hears("route.announced", AGAIN, preference=200)
    moving.waits(1)
    moving.hears("route.withdrawn", SOURCE)
    moving.hears("iface.removed", SOURCE)
    moving.hears("route.announced", AGAIN)
    assert moving.phase() is VmPhase.READY
    assert moving.record is not None
    assert moving.record.generation == AGAIN
    assert not moving.says(VmFailed)


@pytest.mark.parametrize("phase", [VmPhase.SWITCHING, VmPhase.LEAVING, VmPhase.SETTLING])
def test_after_the_switch_a_time_out_is_said_once_and_takes_nothing_back(phase: VmPhase) -> None:
    moving = until(phase)
    for _ in range(20):
        moving.waits(30)
    assert len(moving.says(VmFailed)) == 1
    assert moving.phase() is phase
    assert moving.presence("n2") is (Presence.ROUTED if phase is VmPhase.SETTLING else Presence.PREFERRED)


@pytest.mark.parametrize("phase", [VmPhase.PREPARING, VmPhase.MOVING])
def test_a_delete_before_the_switch_takes_the_target_back_first(phase: VmPhase) -> None:
    moving = until(phase)
    moving.is_deleted()
    assert not moving.says(VmDeleting)
    moving.hears("iface.removed", TARGET)
    (deleting,) = moving.says(VmDeleting)
    assert isinstance(deleting, VmDeleting)
    assert (deleting.node, deleting.generation, moving.phase()) == ("n1", SOURCE, VmPhase.WITHDRAWING)


def test_a_delete_after_the_switch_waits_until_the_source_has_let_go() -> None:
    moving = until(VmPhase.SWITCHING)
    moving.is_deleted()
    moving.hears("route.announced", TARGET, preference=200)
    moving.waits(1)
    moving.hears("iface.removed", SOURCE)
    moving.hears("route.withdrawn", SOURCE)
    moving.hears("route.announced", TARGET)
    (deleting,) = moving.says(VmDeleting)
    assert isinstance(deleting, VmDeleting)
    assert (deleting.node, deleting.generation, moving.phase()) == ("n2", TARGET, VmPhase.WITHDRAWING)


@pytest.mark.parametrize("phase", sorted(migration.PHASES - {VmPhase.RETURNING}))
def test_what_is_asked_while_it_moves_is_answered(phase: VmPhase) -> None:
    record = until(phase).record
    assert record is not None
    answer = requests.cannot_migrate(record, VmMigrateRequested(cluster="msk", vm="vm1", node="n3"), CLUSTER)
    assert isinstance(answer, VmFailed)
    assert answer.code is Code.CONFLICT
    assert "from n1 to n2" in answer.message


def test_a_vm_that_is_there_already_is_said_to_be() -> None:
    asked = VmMigrateRequested(cluster="msk", vm="vm1", node="n1")
    answer = requests.cannot_migrate(a_ready_record(), asked, CLUSTER)
    assert isinstance(answer, VmMigrated)
    assert (answer.node, answer.source, answer.steps_ms) == ("n1", None, None)


SAYINGS = [
    (stem, generation)
    for stem in ("iface.ready", "route.announced", "route.withdrawn", "iface.removed")
    for generation in (SOURCE, TARGET, AGAIN)
]


@given(st.lists(st.one_of(
    st.tuples(st.sampled_from(SAYINGS), st.sampled_from([100, 200])),
    st.sampled_from(["guest on target", "guest on source", "second", "minute", "delete"]),
), max_size=30))  # fmt: skip
def test_some_node_always_has_the_route_and_never_both_with_the_same_preference(
    said: list[tuple[tuple[str, int], int] | str],
) -> None:
    moving = Migration()
    for word in said:
        match word:
            case "guest on target" | "guest on source":
                moving.guest_runs("n2" if word == "guest on target" else "n1", seconds=3600)
            case "second" | "minute":
                moving.waits(1 if word == "second" else 60)
            case "delete":
                moving.is_deleted()
            case ((stem, generation), preference):
                moving.hears(stem, generation, preference=preference)
        if moving.record is None or moving.record.going_back:
            return
        announced = [value.presence for value in moving.bucket.values() if value.presence.is_announced]
        assert announced
        assert [each for each in announced if each is not Presence.PREFERRED] in (
            [Presence.ROUTED],
            [Presence.FORWARDED],
            [],
        )
        assert announced.count(Presence.PREFERRED) <= 1
        if len(announced) == 2:
            assert Presence.PREFERRED in announced
