"""Why a VM is where it is, and where it would be."""

import pytest

from vmfabric.contract.admin import ApplyNode, EvacuateNode, GetVm, ListOfCluster, NodeState
from vmfabric.contract.cluster import Policy, Virtualization
from vmfabric.contract.errors import Refused
from vmfabric.contract.guest_config import GuestConfigForm
from vmfabric.contract.placement import Cause, OtherNode, PlacementDecision
from vmfabric.scheduler.domain.changes import Heard, NodeKey
from vmfabric.scheduler.transaction import transaction

from .builders import START, a_node_spec
from .seat import Scheduler


async def of(scheduler: Scheduler, vm: str = "vm1") -> PlacementDecision:
    decision = await scheduler.decision(vm)
    assert decision is not None
    return decision


async def test_a_vm_keeps_why_its_node_was_chosen_and_why_not_the_others(scheduler: Scheduler) -> None:
    await scheduler.has_node("n3", 3, cpu=1)
    await scheduler.is_made("vm1", cpu=4)
    decision = await of(scheduler)
    assert decision == PlacementDecision(
        at=scheduler.clock.now(),
        cause=Cause.REQUEST,
        policy=Policy.SPREAD,
        node="n1",
        weights={"room": 0.75, "groups": 0.0},
        others=(OtherNode(node="n2", weight=0.75), OtherNode(node="n3", refused="cpu: 4 wanted, 1 free")),
        rest=0,
    )
    state = await scheduler.administration().get_vm(GetVm(cluster="msk", vm="vm1"))
    assert state.decision == decision


async def test_a_migration_says_why_too(scheduler: Scheduler) -> None:
    await scheduler.is_made("vm1")
    await scheduler.handlers.migrate_requested(scheduler.migration())
    decision = await of(scheduler)
    assert (decision.cause, decision.node) == (Cause.MIGRATION, "n2")
    assert decision.others == (OtherNode(node="n1", refused="it is there now, and is to leave it"),)


async def test_an_evacuation_says_why_too(scheduler: Scheduler) -> None:
    await scheduler.is_made("vm1")
    async with transaction(scheduler.store) as tx:
        tx.put_heard(NodeKey("msk", "n1"), Heard(NodeState.LOST, START, ()))
    await scheduler.administration().evacuate_node(EvacuateNode(cluster="msk", node="n1", fence="ipmi"))
    await scheduler.sweep().once()
    decision = await of(scheduler)
    assert (decision.cause, decision.node) == (Cause.EVACUATION, "n2")
    assert decision.others == (OtherNode(node="n1", refused="its node-agent is not heard any more"),)


async def test_a_decision_goes_with_its_vm(scheduler: Scheduler) -> None:
    await scheduler.is_made()
    await scheduler.is_gone()
    assert await scheduler.decision() is None


async def test_a_dry_run_says_what_would_be_and_nothing_happens(scheduler: Scheduler) -> None:
    dry = scheduler.request(cpu=4, dry_run=True)
    await scheduler.handlers.requested(dry)
    assert await scheduler.sent() == ["vm.decided.msk.vm1"]
    assert await scheduler.record() is None
    assert await scheduler.used() == [0, 0]
    await scheduler.handlers.requested(scheduler.request(cpu=4, seconds=0.5))
    assert await scheduler.home("vm1") == "n1", "an older request is not taken for a repetition of the dry run"


async def test_a_dry_run_of_a_vm_that_is_there_touches_nothing(scheduler: Scheduler) -> None:
    await scheduler.is_made("vm1", cpu=10, node="n1")
    before, decision = await scheduler.record(), await scheduler.decision()
    await scheduler.handlers.requested(scheduler.request("vm1", cpu=12, node="n1", dry_run=True))
    assert (await scheduler.sent())[-1] == "vm.decided.msk.vm1"
    assert (await scheduler.record(), await scheduler.decision()) == (before, decision)
    assert await scheduler.used() == [10, 0]
    await scheduler.handlers.requested(scheduler.request("vm2", cpu=6, node="n1"))
    assert await scheduler.used() == [16, 0]


async def test_a_dry_run_and_the_request_itself_are_refused_alike(scheduler: Scheduler) -> None:
    for changes in ({"node": "nowhere"}, {"guest_config": GuestConfigForm.LXD}):
        for vm, dry_run in (("dry", True), ("wet", False)):
            await scheduler.handlers.requested(scheduler.request(vm, dry_run=dry_run, **changes))
        assert (await scheduler.sent())[-2:] == ["vm.failed.msk.dry", "vm.failed.msk.wet"]


async def test_a_node_with_vms_does_not_change_its_kind(scheduler: Scheduler) -> None:
    await scheduler.is_made("vm1", node="n1")
    kvm, lxd = (a_node_spec(virtualization=kind) for kind in Virtualization)
    await scheduler.administration().apply_node(ApplyNode(spec=kvm))
    with pytest.raises(Refused, match=r"n1 cannot become lxd with 1 VMs on it"):
        await scheduler.administration().apply_node(ApplyNode(spec=lxd))
    await scheduler.is_gone("vm1")
    await scheduler.administration().apply_node(ApplyNode(spec=lxd))
    await scheduler.is_made("vm2")
    assert await scheduler.home("vm2") == "n2"


async def test_a_node_that_says_itself_that_no_vm_can_work_there_gets_none(scheduler: Scheduler) -> None:
    async with transaction(scheduler.store) as tx:
        heard = Heard(NodeState.JOINED, START, (), "the uplink eno1 is not there")
        tx.put_heard(NodeKey("msk", "n1"), heard)
    await scheduler.handlers.requested(scheduler.request("vm1"))
    assert await scheduler.home("vm1") == "n2"
    decision = await of(scheduler)
    assert [other.refused for other in decision.others] == ["its node-agent says: the uplink eno1 is not there"]
    nodes = (await scheduler.administration().list_nodes(ListOfCluster())).nodes
    assert [node.problem for node in nodes] == ["the uplink eno1 is not there", None]
