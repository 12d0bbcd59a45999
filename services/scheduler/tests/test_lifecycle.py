"""The life of a VM: every phase with everything that may be said in it."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmfabric.contract.admin import VmPhase
from vmfabric.contract.cluster import ClusterSpec, NetworkType
from vmfabric.contract.desired import Presence
from vmfabric.contract.model import Event
from vmfabric.contract.vm import VmDeleted, VmDeleting, VmFailed, VmPlaced, VmReady
from vmfabric.scheduler.domain import lifecycle, migration, requests
from vmfabric.scheduler.domain.deadlines import Patience
from vmfabric.scheduler.domain.record import Stamp, VmRecord
from vmfabric.scheduler.domain.turn import Turn

from .builders import ADDRESS, START, a_cluster_spec, a_vm_request, another_type, the_facts

GENERATION = 7
CLUSTER = a_cluster_spec()
PATIENCE = Patience()
FACTS = the_facts(GENERATION)
ASKED = Stamp(START, 1)
DELETE = Stamp(START, 2)
PHASES = [phase for phase in VmPhase if phase not in migration.PHASES]
"""Those of creation and removal; a migration has tests of its own."""
WAITED_FOR = {
    VmPhase.ALLOCATING: ["ip.allocated"],
    VmPhase.WIRING: ["iface.ready", "route.announced"],
    VmPhase.READY: [],
    VmPhase.WITHDRAWING: ["route.withdrawn"],
    VmPhase.UNWIRING: ["iface.removed"],
    VmPhase.RELEASING: ["ip.released"],
}


@dataclass
class Vm:
    """A VM and all that was said of it."""

    record: VmRecord | None
    cluster: ClusterSpec = CLUSTER
    now: datetime = START
    events: list[Event] = field(default_factory=list)
    wanted: list[Presence] = field(default_factory=list)
    purged: list[str] = field(default_factory=list)

    def take(self, turn: Turn | None) -> None:
        if turn is None:
            return
        self.record = turn.record
        self.events += turn.events
        self.wanted += [value.presence for value in turn.puts]
        self.purged += turn.purges

    def hears(self, stem: str, generation: int = GENERATION) -> None:
        if self.record is not None:
            fact = the_facts(generation)[stem]
            self.take(lifecycle.advance(self.record, fact, self.cluster, self.now, PATIENCE))

    def is_deleted(self) -> None:
        if self.record is not None:
            self.take(lifecycle.delete(self.record, DELETE, self.now, PATIENCE))

    def waits(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        if self.record is not None:
            self.take(lifecycle.overdue(self.record, self.now, PATIENCE))

    def is_answered(self) -> None:
        """Everybody says what is waited for until nothing is."""
        for _ in range(10):
            if self.record is None or self.record.phase is VmPhase.READY:
                return
            for stem in WAITED_FOR[self.record.phase]:
                self.hears(stem)
        raise AssertionError(f"still {self.record}")

    def said(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)

    @property
    def phase(self) -> VmPhase | None:
        return self.record.phase if self.record else None


def a_vm(phase: VmPhase = VmPhase.ALLOCATING, cluster: ClusterSpec = CLUSTER) -> Vm:
    """A VM that has come into this phase the usual way, with nothing noted of how."""
    vm = Vm(None, cluster)
    vm.take(
        requests.create(
            a_vm_request(), ASKED, node="n1", generation=GENERATION, trace_id="0" * 32, now=START, patience=PATIENCE
        )
    )
    way = ["ip.allocated", "iface.ready", "route.announced", "delete", "route.withdrawn", "iface.removed"]
    for step in way:
        if vm.phase is phase:
            break
        if step == "delete":
            vm.is_deleted()
        else:
            vm.hears(step)
    assert vm.phase is phase
    return Vm(vm.record, cluster)


TABLE: dict[tuple[VmPhase, str], VmPhase | None] = {
    (VmPhase.ALLOCATING, "ip.allocated"): VmPhase.WIRING,
    (VmPhase.ALLOCATING, "ip.refused"): VmPhase.RELEASING,
    (VmPhase.WIRING, "iface.ready"): VmPhase.WIRING,
    (VmPhase.WIRING, "route.announced"): VmPhase.WIRING,
    (VmPhase.WITHDRAWING, "route.withdrawn"): VmPhase.UNWIRING,
    (VmPhase.UNWIRING, "iface.removed"): VmPhase.RELEASING,
    (VmPhase.RELEASING, "ip.released"): None,
}
"""Everything else changes nothing."""


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("stem", FACTS)
def test_each_phase_is_left_by_what_it_waits_for_and_by_nothing_else(phase: VmPhase, stem: str) -> None:
    vm = a_vm(phase)
    before = vm.record
    assert before is not None
    turn = lifecycle.advance(before, FACTS[stem], CLUSTER, START, PATIENCE)
    if (phase, stem) not in TABLE:
        assert turn is None
        return
    assert turn is not None
    assert (turn.record.phase if turn.record else None) is TABLE[phase, stem]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("stem", FACTS)
@pytest.mark.parametrize("generation", [GENERATION - 1, GENERATION + 1])
def test_a_fact_of_another_generation_is_ignored_in_every_phase(phase: VmPhase, stem: str, generation: int) -> None:
    record = a_vm(phase).record
    assert record is not None
    assert lifecycle.advance(record, the_facts(generation)[stem], CLUSTER, START, PATIENCE) is None


@pytest.mark.parametrize(
    ("phase", "presence"),
    [
        (VmPhase.ALLOCATING, None),
        (VmPhase.WIRING, Presence.ROUTED),
        (VmPhase.READY, Presence.ROUTED),
        (VmPhase.WITHDRAWING, Presence.WIRED),
        (VmPhase.UNWIRING, Presence.ABSENT),
        (VmPhase.RELEASING, Presence.ABSENT),
    ],
)
def test_the_desired_state_says_in_each_phase_how_much_is_on_the_node(
    phase: VmPhase, presence: Presence | None
) -> None:
    record = a_vm(phase).record
    assert record is not None
    assert (record.desired.presence if record.desired else None) is presence


@pytest.mark.parametrize("order", [["iface.ready", "route.announced"], ["route.announced", "iface.ready"]])
def test_a_vm_is_ready_when_it_is_wired_and_announced_in_whatever_order(order: list[str]) -> None:
    vm = a_vm(VmPhase.WIRING)
    for seconds, stem in enumerate(order, start=1):
        vm.now = START + timedelta(seconds=seconds)
        assert not vm.said(VmReady)
        vm.hears(stem)
    ready = next(event for event in vm.events if isinstance(event, VmReady))
    assert {ready.steps_ms.wired, ready.steps_ms.announced} == {1000.0, 2000.0}
    assert [allocated.address for allocated in ready.addresses] == [ADDRESS]


def test_a_refused_address_fails_the_vm_after_ipam_has_closed_it() -> None:
    vm = a_vm()
    vm.hears("ip.refused")
    assert [event.wired for event in vm.events if isinstance(event, VmDeleting)] == [False]
    assert not vm.said(VmFailed)
    vm.hears("ip.allocated")  # a late answer to a question that was asked twice
    assert not vm.wanted
    vm.hears("ip.released")
    failed = next(event for event in vm.events if isinstance(event, VmFailed))
    assert (failed.step, failed.code, failed.held) == ("allocate", "pool_exhausted", ())
    assert vm.record is None


@pytest.mark.parametrize("phase", PHASES)
def test_a_delete_ends_every_phase_with_nothing_left(phase: VmPhase) -> None:
    vm = a_vm(phase)
    had_desired = vm.record is not None and vm.record.desired is not None
    vm.is_deleted()
    vm.is_answered()
    assert vm.record is None
    assert (vm.said(VmDeleted), vm.said(VmFailed)) == (1, 0)
    assert vm.purged == (["vm.msk.n1.vm1"] if had_desired else [])


@pytest.mark.parametrize(("phase", "step"), [(VmPhase.ALLOCATING, "allocate"), (VmPhase.WIRING, "wire")])
def test_a_step_up_that_takes_too_long_fails_and_is_taken_back(phase: VmPhase, step: str) -> None:
    vm = a_vm(phase)
    vm.waits(PATIENCE.phase)
    assert vm.said(VmDeleting) == 1
    vm.is_answered()
    failed = next(event for event in vm.events if isinstance(event, VmFailed))
    assert (failed.step, failed.code, failed.held) == (step, "step_timed_out", ())


def test_a_vm_that_is_wired_but_not_announced_fails_at_announcing() -> None:
    vm = a_vm(VmPhase.WIRING)
    vm.hears("iface.ready")
    vm.waits(PATIENCE.phase)
    vm.is_answered()
    assert [event.step for event in vm.events if isinstance(event, VmFailed)] == ["announce"]


@pytest.mark.parametrize("phase", [VmPhase.WITHDRAWING, VmPhase.UNWIRING, VmPhase.RELEASING])
def test_no_time_frees_what_a_node_has_not_let_go(phase: VmPhase) -> None:
    vm = a_vm(phase)
    for _ in range(100):
        vm.waits(60)
    assert vm.phase is phase
    assert [event.held for event in vm.events if isinstance(event, VmFailed)] == [(ADDRESS,)]


def test_a_slow_way_back_is_reported_once_however_many_of_its_steps_are_slow() -> None:
    vm = a_vm(VmPhase.WITHDRAWING)
    for stem in ("route.withdrawn", "iface.removed", "ip.released"):
        for _ in range(5):
            vm.waits(60)
        vm.hears(stem)
    assert vm.record is None
    assert (vm.said(VmFailed), vm.said(VmDeleted)) == (1, 1)


@pytest.mark.parametrize(
    ("phase", "events", "wanted"),
    [
        (VmPhase.ALLOCATING, [VmPlaced], []),
        (VmPhase.WIRING, [], [Presence.ROUTED]),
        (VmPhase.READY, [], []),
        (VmPhase.WITHDRAWING, [], [Presence.WIRED]),
        (VmPhase.UNWIRING, [], [Presence.ABSENT]),
        (VmPhase.RELEASING, [VmDeleting], [Presence.ABSENT]),
    ],
)
def test_what_is_asked_again_is_what_the_answer_follows_from(
    phase: VmPhase, events: list[type[Event]], wanted: list[Presence]
) -> None:
    vm = a_vm(phase)
    vm.waits(PATIENCE.first)
    assert [type(event) for event in vm.events] == events
    assert vm.wanted == wanted


happenings = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(sorted(FACTS)), st.sampled_from([GENERATION - 1, *[GENERATION] * 4, GENERATION + 1])
        ),
        st.just(("delete", 0)),
        st.tuples(st.just("wait"), st.sampled_from([1, 4, 31])),
    ),
    max_size=40,
)


@given(happenings, st.sampled_from([CLUSTER, another_type(NetworkType.SWITCHING)]))
def test_whatever_is_said_in_whatever_order_every_life_ends_well(
    happened: list[tuple[str, int]], cluster: ClusterSpec
) -> None:
    vm = a_vm(cluster=cluster)
    was_deleted = False
    for what, number in happened:
        alive = vm.record is not None
        was_deleted |= alive and what == "delete"
        if what == "delete":
            vm.is_deleted()
        elif what == "wait":
            vm.waits(number)
        else:
            vm.hears(what, number)
        if alive and vm.record is None:
            assert (what, number) == ("ip.released", GENERATION), "only ipam's word ends a life"
    is_going = vm.record is None or vm.record.going_back
    vm.is_answered()

    assert vm.phase is (None if is_going else VmPhase.READY)
    assert vm.said(VmReady) <= 1
    steps = [Presence.ROUTED, Presence.WIRED, Presence.ABSENT]
    assert vm.wanted == sorted(vm.wanted, key=steps.index), "presence only goes down"
    assert not vm.wanted or not is_going or vm.wanted[-1] is Presence.ABSENT
    assert len([event for event in vm.events if isinstance(event, VmFailed) and event.held]) <= 1
    answers = [event for event in vm.events if isinstance(event, VmDeleted) or _is_last_word(event)]
    assert bool(answers) is is_going
    assert vm.said(VmDeleted) == was_deleted


def _is_last_word(event: Event) -> bool:
    return isinstance(event, VmFailed) and not event.held
