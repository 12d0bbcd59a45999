"""The VMs of a lost node are placed elsewhere, and the node hears of it when it returns."""

from datetime import timedelta

import pytest

from vmfabric.contract.admin import EvacuateNode, NodeState, UndrainNode, VmPhase
from vmfabric.contract.desired import Presence
from vmfabric.contract.envelope import Trace
from vmfabric.contract.errors import Refused, TryAgain
from vmfabric.contract.iface import IfaceReady, IfaceRemoved
from vmfabric.contract.node import NodeFenced, NodeHeartbeat
from vmfabric.contract.route import RouteWithdrawn
from vmfabric.contract.vm import VmDeleting, VmFailed, VmMigrated
from vmfabric.runtime.desired import KEY_SUBJECT
from vmfabric.runtime.message import Message
from vmfabric.scheduler import draining
from vmfabric.scheduler.domain import evacuation, migration
from vmfabric.scheduler.domain.changes import Heard, NodeKey
from vmfabric.scheduler.domain.record import VmRecord
from vmfabric.scheduler.draining import Draining
from vmfabric.scheduler.nodes import Nodes
from vmfabric.scheduler.transaction import transaction

from .builders import START, a_cluster_spec
from .seat import Scheduler
from .test_lifecycle import PATIENCE
from .test_migration import TARGET, Migration, until

OLD_KEY = f"{KEY_SUBJECT}vm.msk.n1.vm1"
NEW_KEY = f"{KEY_SUBJECT}vm.msk.n2.vm1"


async def is_on_n1(scheduler: Scheduler, vm: str = "vm1") -> VmRecord:
    """The first of two equal nodes is taken."""
    await scheduler.is_made(vm)
    return await known(scheduler, vm, node="n1")


async def known(scheduler: Scheduler, vm: str = "vm1", *, node: str) -> VmRecord:
    record = await scheduler.record(vm)
    assert record is not None
    assert record.node == node
    return record


async def is_lost(scheduler: Scheduler, node: str = "n1", state: NodeState = NodeState.LOST) -> None:
    async with transaction(scheduler.store) as tx:
        tx.put_heard(NodeKey("msk", node), Heard(state, START, ()))


async def evacuated(scheduler: Scheduler, node: str = "n1") -> None:
    await is_lost(scheduler, node)
    await scheduler.administration().evacuate_node(EvacuateNode(cluster="msk", node=node, fence="ipmi"))
    await scheduler.sweep().once()


async def left_behind(scheduler: Scheduler) -> list[tuple[str, int, Presence]]:
    async with scheduler.store.rows() as rows:
        left = [row.desired for row in await rows.left_behind()]
        return [(value.node, value.generation, value.presence) for value in left]


async def removed(scheduler: Scheduler, generation: int, node: str = "n1") -> None:
    for kind in (RouteWithdrawn, IfaceRemoved):
        fact = kind(cluster="msk", vm="vm1", node=node, generation=generation)
        await scheduler.handlers.happened(Message(fact, Trace.new(), START))


async def test_a_vm_begins_again_elsewhere_and_its_old_node_is_told(scheduler: Scheduler) -> None:
    old = await is_on_n1(scheduler)
    before = len(await scheduler.sent())
    await evacuated(scheduler)
    new = await known(scheduler, node="n2")
    assert (new.phase, new.addresses) == (VmPhase.WIRING, old.addresses)
    assert new.generation > old.generation
    assert new.desired is not None
    assert new.desired.presence is Presence.EVACUATED
    [(node, generation, presence)] = await left_behind(scheduler)
    assert (node, presence) == ("n1", Presence.ABSENT)
    assert generation > old.generation, "what the node has said before does not count"
    said = (await scheduler.sent())[before:]
    assert said == ["node.draining.msk.n1", "vm.placed.msk.vm1", OLD_KEY, NEW_KEY]
    assert await scheduler.used() == [0, new.request.cpu]
    await scheduler.sweep().once()
    assert "node.drained.msk.n1" not in await scheduler.sent(), "the core may still send its packets there"
    await scheduler.hears("iface.ready", "route.announced")
    assert (await scheduler.sent())[-1] == "vm.ready.msk.vm1"
    await scheduler.sweep().once()
    assert (await scheduler.sent())[-1] == "node.drained.msk.n1"


async def test_the_route_becomes_normal_when_the_old_node_has_let_go(scheduler: Scheduler) -> None:
    old = await is_on_n1(scheduler)
    await evacuated(scheduler)
    await scheduler.hears("iface.ready", "route.announced")
    [(_, generation, _)] = await left_behind(scheduler)
    await removed(scheduler, old.generation)
    assert len(await left_behind(scheduler)) == 1, "that was said of an older stay"
    withdrawn = RouteWithdrawn(cluster="msk", vm="vm1", node="n1", generation=generation)
    await scheduler.handlers.happened(Message(withdrawn, Trace.new(), START))
    assert len(await left_behind(scheduler)) == 1, "it is still wired"
    await removed(scheduler, generation)
    assert await left_behind(scheduler) == []
    assert (await scheduler.sent())[-2:] == [f"PURGE {OLD_KEY}", NEW_KEY]
    new = await known(scheduler, node="n2")
    assert (new.evacuated, new.desired and new.desired.presence) == (False, Presence.ROUTED)
    before = await scheduler.sent()
    await removed(scheduler, generation)
    assert await scheduler.sent() == before


async def test_no_deadline_takes_an_evacuated_vm_down(scheduler: Scheduler) -> None:
    await is_on_n1(scheduler)
    await evacuated(scheduler)
    for _ in range(5):
        scheduler.clock.pass_(31)
        await scheduler.sweep().once()
    record = await known(scheduler, node="n2")
    assert (record.phase, record.reported) == (VmPhase.WIRING, True)
    assert (await scheduler.sent()).count("vm.failed.msk.vm1") == 1, "said once"
    assert (await scheduler.sent())[-1] == NEW_KEY, "and asked for again"
    await scheduler.hears("iface.ready", "route.announced")
    assert (await scheduler.sent())[-1] == "vm.ready.msk.vm1"


async def test_a_vm_without_addresses_yet_is_placed_again(scheduler: Scheduler) -> None:
    await scheduler.handlers.requested(scheduler.request())
    await known(scheduler, node="n1")
    await evacuated(scheduler)
    assert (await known(scheduler, node="n2")).phase is VmPhase.ALLOCATING
    assert await left_behind(scheduler) == []
    await scheduler.hears("ip.allocated", "iface.ready", "route.announced")
    assert (await scheduler.sent())[-1] == "vm.ready.msk.vm1"


@pytest.mark.parametrize("heard", [[], ["route.withdrawn"]])
async def test_a_removal_goes_on_without_the_node(scheduler: Scheduler, heard: list[str]) -> None:
    await is_on_n1(scheduler)
    await scheduler.handlers.delete_requested(scheduler.deletion())
    await scheduler.hears(*heard)
    await evacuated(scheduler)
    assert (await known(scheduler, node="n1")).phase is VmPhase.RELEASING
    [(_, generation, _)] = await left_behind(scheduler)
    await scheduler.hears("ip.released")
    assert await scheduler.record() is None
    assert (await scheduler.sent())[-1] == "vm.deleted.msk.vm1"
    await removed(scheduler, generation)
    assert await left_behind(scheduler) == []
    assert (await scheduler.sent())[-1] == f"PURGE {OLD_KEY}"


async def test_a_vm_that_no_node_can_take_waits_and_says_why(scheduler: Scheduler) -> None:
    await is_on_n1(scheduler)
    await is_lost(scheduler, "n2")
    await evacuated(scheduler)
    assert (await known(scheduler, node="n1")).phase is VmPhase.READY
    asked = EvacuateNode(cluster="msk", node="n1", fence="ipmi", dry_run=True)
    [staying] = (await scheduler.administration().evacuate_node(asked)).staying
    assert "n2: its node-agent is not heard any more" in staying.reason
    await is_lost(scheduler, "n2", NodeState.JOINED)
    await scheduler.sweep().once()
    await known(scheduler, node="n2")


async def test_a_vm_that_no_node_can_take_is_not_in_the_way_of_the_others(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "EVACUATED_AT_ONCE", 1)
    await scheduler.handlers.requested(scheduler.request("vm0", node="n1", cpu=1))
    await scheduler.hears("ip.allocated", vm="vm0")
    for vm, home in (("vm1", "n2"), ("vm2", "n1")):
        await scheduler.handlers.requested(scheduler.request(vm, cpu=1))
        await scheduler.hears("ip.allocated", vm=vm)
        assert await scheduler.home(vm) == home
    await is_lost(scheduler)
    await scheduler.administration().evacuate_node(EvacuateNode(cluster="msk", node="n1", fence="ipmi"))
    sweep = scheduler.sweep()
    await sweep.once()
    assert await scheduler.home("vm2") == "n1", "one at a time, and vm0 comes first"
    scheduler.clock.pass_(1)
    await sweep.once()
    assert [await scheduler.home(vm) for vm in ("vm0", "vm2")] == ["n1", "n2"]


async def test_a_vm_goes_on_from_refuge_to_refuge(scheduler: Scheduler) -> None:
    await is_on_n1(scheduler)
    await evacuated(scheduler)
    await known(scheduler, node="n2")
    await is_lost(scheduler, "n1", NodeState.JOINED)
    await scheduler.administration().undrain_node(UndrainNode(cluster="msk", node="n1"))
    await evacuated(scheduler, "n2")
    new = await known(scheduler, node="n1")
    assert [node for node, _, _ in await left_behind(scheduler)] == ["n1", "n2"]
    ready = IfaceReady.model_validate(
        {
            "cluster": "msk", "vm": "vm1", "node": "n1", "generation": new.generation,
            "interface": "vm1_net0", "guest": {"mac": new.mac, "mtu": 1500, "addresses": ()},
        }
    )  # fmt: skip
    await scheduler.handlers.happened(Message(ready, Trace.new(), START))
    assert [left[0] for left in await left_behind(scheduler)] == ["n2"], "who has the newer one let go of the older"
    assert f"PURGE {OLD_KEY}" not in await scheduler.sent(), "the key says what is wanted there now"


async def test_a_fence_speaks_of_one_loss_only(scheduler: Scheduler) -> None:
    await is_on_n1(scheduler)
    await is_lost(scheduler, "n2")
    await evacuated(scheduler)
    await known(scheduler, node="n1")
    nodes = Nodes(scheduler.store, scheduler.clock, committed=lambda: None)
    for name in ("n1", "n2"):
        nodes.heard(NodeHeartbeat(cluster="msk", node=name, addresses=(), vms=1))
    await nodes.review()
    assert {"node.returned.msk.n1", "node.returned.msk.n2"} < set(await scheduler.sent())
    await is_lost(scheduler)
    await scheduler.sweep().once()
    await known(scheduler, node="n1")
    await evacuated(scheduler)
    await known(scheduler, node="n2")


async def test_only_a_lost_node_can_be_evacuated(scheduler: Scheduler) -> None:
    with pytest.raises(Refused, match=r"n1 is joined, not lost: node\.drain"):
        await scheduler.administration().evacuate_node(EvacuateNode(cluster="msk", node="n1", fence="ipmi"))


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_fence_is_believed_when_the_cluster_trusts_it(scheduler: Scheduler, trusted: bool) -> None:
    await is_on_n1(scheduler)
    async with transaction(scheduler.store) as tx:
        tx.put_cluster(a_cluster_spec(trusted_fences=("ipmi",) if trusted else ()))
    fences = Draining(scheduler.store, scheduler.clock, scheduler.handlers, committed=lambda: None)
    fenced = NodeFenced(cluster="msk", node="n1", fence="ipmi")
    await is_lost(scheduler)
    await fences.fenced(Message(fenced, Trace.new(), scheduler.clock.now()))
    await fences.review()
    await known(scheduler, node="n2" if trusted else "n1")


async def test_a_fence_waits_until_the_node_is_lost_but_not_for_ever(scheduler: Scheduler) -> None:
    async with transaction(scheduler.store) as tx:
        tx.put_cluster(a_cluster_spec(trusted_fences=("ipmi",)))
    fences = Draining(scheduler.store, scheduler.clock, scheduler.handlers, committed=lambda: None)
    fenced = NodeFenced(cluster="msk", node="n1", fence="ipmi")
    with pytest.raises(TryAgain):
        await fences.fenced(Message(fenced, Trace.new(), scheduler.clock.now()))
    await fences.fenced(Message(fenced, Trace.new(), scheduler.clock.now() - timedelta(minutes=2)))
    await is_lost(scheduler)
    await fences.review()
    assert await scheduler.sent() == []


MOVES = sorted(migration.PHASES, key=list(VmPhase).index)


@pytest.mark.parametrize("phase", MOVES)
@pytest.mark.parametrize(("lost", "refuge"), [("n1", "n3"), ("n2", "n3"), ("n1", "n2"), ("n2", "n1")])
def test_whichever_node_is_lost_in_a_migration_one_generation_is_wanted_in_the_end(
    phase: VmPhase, lost: str, refuge: str
) -> None:
    moving = until(phase) if phase is not VmPhase.RETURNING else given_up()
    record = moving.record
    assert record is not None
    former = record.all_desired()
    if evacuation.needs_refuge(record, lost):
        turn = evacuation.flee(record, evacuation.Refuge(refuge, 20), 21, moving.now, PATIENCE)
    else:
        found = evacuation.abandon(record, lost, 21, moving.now, PATIENCE)
        if found is None:
            assert all(value.node != lost for value in former), "nothing of it is there"
            return
        turn = found
    after = turn.record
    assert after is not None
    assert lost not in after.nodes()
    assert {value.node for value in turn.left_behind} | after.nodes() >= {value.node for value in former}
    assert all(value.presence is Presence.ABSENT for value in turn.left_behind)
    assert not {value.key() for value in turn.left_behind} & {value.key() for value in after.all_desired()}
    moving.take(turn)
    match after.phase:
        case VmPhase.WIRING:
            assert (after.node, after.desired and after.desired.presence) == (refuge, Presence.EVACUATED)
        case VmPhase.SWITCHING | VmPhase.SETTLING:
            moving.hears("route.announced", TARGET, preference=200)
            moving.hears("route.announced", TARGET, preference=150)
            assert len(moving.says(VmMigrated)) == 1
            assert moving.presence("n2") is Presence.EVACUATED, "until the source has let go"
        case _:
            assert after.phase is VmPhase.READY
            [failed] = moving.says(VmFailed)
            assert isinstance(failed, VmFailed)
            assert "vm1 is on n1 as before: " in failed.message
            assert moving.presence("n1") is Presence.ROUTED
    assert moving.record is not None
    assert moving.record.move is None


def test_a_refuge_that_a_vm_leaves_stays_above_the_lost_node_until_it_has_let_go() -> None:
    moving = until(VmPhase.MOVING)
    assert moving.record is not None
    assert moving.record.desired is not None
    refuge = moving.record.desired.model_copy(update={"presence": Presence.EVACUATED})
    moving.record = moving.record.model_copy(update={"evacuated": True, "desired": refuge})
    moving.guest_runs()
    assert (moving.presence("n1"), moving.presence("n2")) == (Presence.EVACUATED, Presence.PREFERRED)
    moving.hears("route.announced", TARGET, preference=200)
    moving.waits(1)
    assert (moving.presence("n1"), moving.presence("n2")) == (Presence.ABSENT, Presence.PREFERRED)


def given_up() -> Migration:
    moving = until(VmPhase.MOVING)
    moving.waits(PATIENCE.move + 1)
    assert moving.phase() is VmPhase.RETURNING
    return moving


def test_a_vm_whose_removal_was_asked_for_in_its_migration_goes_without_the_lost_node() -> None:
    moving = until(VmPhase.SWITCHING)
    moving.is_deleted()
    assert moving.record is not None
    turn = evacuation.abandon(moving.record, "n2", 21, moving.now, PATIENCE)
    assert turn is not None
    assert [(event.generation, event.wired) for event in turn.events if isinstance(event, VmDeleting)] == [
        (TARGET, True),
        (TARGET, False),
    ]
    assert {(left.node, left.generation) for left in turn.left_behind} == {("n1", 21), ("n2", 21)}
