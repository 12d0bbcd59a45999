"""Clusters without BGP: nobody waits for a bgp-announcer, and where a VM belongs to its node it stays there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmfabric.contract.admin import DrainNode, EvacuateNode, GetVm, NodeState, VmPhase
from vmfabric.contract.cluster import NetworkType
from vmfabric.contract.desired import Presence
from vmfabric.contract.envelope import Trace
from vmfabric.contract.errors import Code
from vmfabric.contract.iface import IfaceRemoved
from vmfabric.contract.vm import VmFailed, VmMigrated, VmMigrateRequested, VmReady
from vmfabric.runtime.desired import KEY_SUBJECT
from vmfabric.runtime.message import Message
from vmfabric.scheduler.domain import evacuation, lifecycle, requests
from vmfabric.scheduler.domain.record import LeftBehind

from .builders import START, another_type
from .seat import Scheduler
from .test_evacuation import evacuated, is_lost, known, left_behind
from .test_lifecycle import PATIENCE, Vm, a_vm
from .test_migration import SOURCE, TARGET, Migration

SWITCHING = another_type(NetworkType.SWITCHING)
ROUTING = another_type(NetworkType.ROUTING)


def a_switched_vm(phase: VmPhase = VmPhase.ALLOCATING) -> Vm:
    return a_vm(phase, SWITCHING)


def moved_to(phase: VmPhase) -> Migration:
    moving = Migration(cluster=SWITCHING)
    if phase is not VmPhase.PREPARING:
        moving.hears("iface.ready", TARGET)
    if phase in {VmPhase.LEAVING, VmPhase.READY}:
        moving.guest_runs()
    if phase is VmPhase.READY:
        moving.hears("iface.removed", SOURCE)
    assert moving.phase() is phase
    return moving


def test_a_vm_is_ready_when_it_is_wired() -> None:
    vm = a_switched_vm(VmPhase.WIRING)
    vm.hears("iface.ready")
    [ready] = [event for event in vm.events if isinstance(event, VmReady)]
    assert (vm.phase, ready.steps_ms.announced) == (VmPhase.READY, None)


def test_a_vm_goes_without_being_withdrawn() -> None:
    vm = a_switched_vm(VmPhase.READY)
    vm.is_deleted()
    assert (vm.phase, vm.wanted) == (VmPhase.UNWIRING, [Presence.ABSENT])
    vm.hears("iface.removed")
    vm.hears("ip.released")
    assert vm.record is None


def test_nobody_is_said_to_wait_for_a_route() -> None:
    vm = a_switched_vm(VmPhase.WIRING)
    for _ in range(2):
        assert vm.record is not None
        assert "node-agent of n1" in (lifecycle.waits_for(vm.record) or "")
        vm.is_deleted()


def test_a_guest_has_moved_when_its_old_node_has_let_it_go() -> None:
    moving = moved_to(VmPhase.READY)
    assert moving.story == [
        (Presence.ROUTED, Presence.PREPARED),
        (Presence.ABSENT, Presence.ROUTED),
        (None, Presence.ROUTED),
    ]
    [migrated] = moving.says(VmMigrated)
    assert isinstance(migrated, VmMigrated)
    assert (migrated.source, migrated.node) == ("n1", "n2")
    assert migrated.steps_ms is not None
    assert migrated.steps_ms.announced is None


@pytest.mark.parametrize("phase", [VmPhase.PREPARING, VmPhase.MOVING])
def test_a_guest_that_does_not_come_leaves_the_vm_where_it_was(phase: VmPhase) -> None:
    moving = moved_to(phase)
    moving.waits(700)
    assert moving.phase() is VmPhase.RETURNING
    moving.hears("iface.removed", TARGET)
    [failed] = moving.says(VmFailed)
    assert isinstance(failed, VmFailed)
    assert (failed.step, moving.phase(), moving.presence("n1")) == ("migrate", VmPhase.READY, Presence.ROUTED)


def test_a_guest_that_comes_after_all_has_its_source_until_the_target_is_wired_anew() -> None:
    moving = moved_to(VmPhase.MOVING)
    moving.waits(700)
    assert moving.phase() is VmPhase.RETURNING
    moving.guest_runs(seconds=3600)
    anew = moving.record.generation if moving.record else 0
    assert (moving.phase(), moving.presence("n1"), moving.presence("n2")) == (
        VmPhase.SWITCHING,
        Presence.ROUTED,
        Presence.PREPARED,
    )
    moving.hears("iface.ready", anew)
    assert (moving.phase(), moving.presence("n1"), moving.presence("n2")) == (
        VmPhase.LEAVING,
        Presence.ABSENT,
        Presence.ROUTED,
    )


def test_a_delete_while_the_source_lets_go_takes_the_vm_down_on_its_new_node() -> None:
    moving = moved_to(VmPhase.LEAVING)
    moving.is_deleted()
    moving.hears("iface.removed", SOURCE)
    assert (moving.phase(), moving.presence("n2")) == (VmPhase.UNWIRING, Presence.ABSENT)


@pytest.mark.parametrize("phase", [VmPhase.PREPARING, VmPhase.MOVING, VmPhase.LEAVING])
@pytest.mark.parametrize("lost", ["n1", "n2"])
def test_whichever_node_is_lost_in_a_migration_the_vm_goes_on_when_it_is_wired(phase: VmPhase, lost: str) -> None:
    moving = moved_to(phase)
    assert moving.record is not None
    if evacuation.needs_refuge(moving.record, lost):
        moving.take(evacuation.flee(moving.record, evacuation.Refuge("n3", 20), 21, moving.now, PATIENCE))
        assert moving.phase() is VmPhase.WIRING
    else:
        moving.take(evacuation.abandon(moving.record, lost, 21, moving.now, PATIENCE))
        assert moving.phase() is VmPhase.READY
        assert len(moving.says(VmMigrated if phase is VmPhase.LEAVING else VmFailed)) == 1
    assert moving.record.move is None


def test_what_a_lost_node_has_is_gone_when_its_link_is() -> None:
    desired = a_switched_vm(VmPhase.READY).record
    assert desired is not None
    left = LeftBehind(desired=desired.wanted(Presence.ABSENT))
    removed = IfaceRemoved(cluster="msk", vm="vm1", node="n1", generation=7)
    assert not left.is_gone
    assert evacuation.hears(left, removed).is_gone


SAYINGS = [(stem, of) for stem in ("iface.ready", "iface.removed", "route.withdrawn") for of in (SOURCE, TARGET)]


@given(st.lists(st.one_of(st.sampled_from(SAYINGS), st.sampled_from(["guest", "second", "minute"])), max_size=30))
def test_one_node_has_the_port_of_the_guest_whatever_is_said(said: list[tuple[str, int] | str]) -> None:
    moving = Migration(cluster=SWITCHING)
    for word in said:
        match word:
            case "guest":
                moving.guest_runs(seconds=3600)
            case "second" | "minute":
                moving.waits(1 if word == "second" else 60)
            case (stem, generation):
                moving.hears(stem, generation)
        there = [value.presence for value in moving.bucket.values()]
        assert there.count(Presence.ROUTED) == 1
        assert set(there) <= {Presence.ROUTED, Presence.PREPARED, Presence.ABSENT}


def test_a_vm_of_a_routing_cluster_cannot_migrate_and_hears_why() -> None:
    record = a_switched_vm(VmPhase.READY).record
    assert record is not None
    answer = requests.cannot_migrate(record, VmMigrateRequested(cluster="msk", vm="vm1", node="n2"), ROUTING)
    assert isinstance(answer, VmFailed)
    assert (answer.step, answer.code) == ("migrate", Code.CANNOT_MIGRATE)
    assert "sends its addresses to n1" in answer.message
    assert "delete it and create it anew" in answer.message
    there = requests.cannot_migrate(record, VmMigrateRequested(cluster="msk", vm="vm1", node="n1"), ROUTING)
    assert isinstance(there, VmMigrated)


@pytest.mark.parametrize("kind", [NetworkType.SWITCHING, NetworkType.ROUTING])
async def test_a_vm_comes_and_goes_with_its_link(scheduler: Scheduler, kind: NetworkType) -> None:
    await scheduler.is_of_type(kind)
    await scheduler.handlers.requested(scheduler.request())
    await scheduler.hears("ip.allocated", "iface.ready")
    assert (await scheduler.sent())[-1] == "vm.ready.msk.vm1"
    await scheduler.handlers.delete_requested(scheduler.deletion())
    await scheduler.hears("iface.removed", "ip.released")
    assert (await scheduler.sent())[-1] == "vm.deleted.msk.vm1"
    assert await scheduler.used() == [0, 0]


async def test_a_switched_vm_of_a_lost_node_begins_again_and_the_node_lets_go_of_its_link(
    scheduler: Scheduler,
) -> None:
    await scheduler.is_of_type(NetworkType.SWITCHING)
    await scheduler.is_made()
    await evacuated(scheduler)
    await scheduler.hears("iface.ready")
    assert (await known(scheduler, node="n2")).phase is VmPhase.READY
    [(node, generation, _)] = await left_behind(scheduler)
    removed = IfaceRemoved(cluster="msk", vm="vm1", node=node, generation=generation)
    await scheduler.handlers.happened(Message(removed, Trace.new(), START))
    assert await left_behind(scheduler) == []
    assert (await scheduler.sent())[-1] == f"PURGE {KEY_SUBJECT}vm.msk.n1.vm1"
    new = await known(scheduler, node="n2")
    assert new.desired is not None
    assert new.desired.presence is Presence.ROUTED


@pytest.mark.parametrize("phase", [VmPhase.ALLOCATING, VmPhase.WIRING, VmPhase.READY])
async def test_a_vm_that_its_provider_sends_to_a_lost_node_stays_and_says_why(
    scheduler: Scheduler, phase: VmPhase
) -> None:
    await scheduler.is_of_type(NetworkType.ROUTING)
    await scheduler.handlers.requested(scheduler.request(node=None))
    stems = {
        VmPhase.ALLOCATING: (),
        VmPhase.WIRING: ("ip.allocated",),
        VmPhase.READY: ("ip.allocated", "iface.ready"),
    }
    await scheduler.hears(*stems[phase])
    before = await known(scheduler, node="n1")
    await evacuated(scheduler)
    assert await scheduler.record() == before
    said = await scheduler.administration().evacuate_node(EvacuateNode(cluster="msk", node="n1", fence="ipmi"))
    assert said.vms == 1
    if phase is VmPhase.READY:
        assert "sends its addresses to n1" in said.staying[0].reason


async def test_a_removal_of_a_routed_vm_goes_on_without_its_lost_node(scheduler: Scheduler) -> None:
    await scheduler.is_of_type(NetworkType.ROUTING)
    await scheduler.is_made()
    await scheduler.handlers.delete_requested(scheduler.deletion())
    await evacuated(scheduler)
    assert (await known(scheduler, node="n1")).phase is VmPhase.RELEASING
    await scheduler.hears("ip.released")
    assert (await scheduler.sent())[-1] == "vm.deleted.msk.vm1"


async def test_a_drain_of_a_routing_node_moves_nothing_and_says_why(scheduler: Scheduler) -> None:
    await scheduler.is_of_type(NetworkType.ROUTING)
    await scheduler.is_made()
    drained = await scheduler.administration().drain_node(DrainNode(cluster="msk", node="n1"))
    [staying] = drained.staying
    assert (staying.vm, drained.vms) == ("vm1", 1)
    assert "delete it and create it anew elsewhere" in staying.reason
    await scheduler.sweep().once()
    assert not [subject for subject in await scheduler.sent() if subject.startswith("vm.migrate.requested")]


async def test_a_late_answer_is_asked_of_the_node_agent_only(scheduler: Scheduler) -> None:
    await scheduler.is_of_type(NetworkType.SWITCHING)
    await scheduler.handlers.requested(scheduler.request())
    await scheduler.hears("ip.allocated")
    state = await scheduler.administration().get_vm(GetVm(cluster="msk", vm="vm1"))
    assert state.waiting_for == "iface.ready from the node-agent of n1"
    await is_lost(scheduler, "n2", NodeState.LOST)
    scheduler.clock.pass_(31)
    await scheduler.sweep().once()
    failing = await scheduler.record()
    assert failing is not None
    assert (failing.phase, failing.failure and failing.failure.step) == (VmPhase.UNWIRING, "wire")
