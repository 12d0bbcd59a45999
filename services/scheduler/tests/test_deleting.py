"""A node that does not come back is deleted."""

from collections.abc import Mapping

import pytest

from vmfabric.contract.admin import Change, DeleteNode, NodeState
from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.contract.errors import Code, Refused
from vmfabric.runtime.desired import KEY_SUBJECT
from vmfabric.scheduler.deleting import Deleting
from vmfabric.scheduler.strays import Strays

from .seat import Scheduler
from .test_evacuation import NEW_KEY, OLD_KEY, evacuated, is_lost, is_on_n1, known, left_behind

NODE_KEY = f"PURGE {KEY_SUBJECT}node.msk.n1"


async def deleted(
    scheduler: Scheduler, node: str = "n1", *, cluster: str = "msk", stray: DesiredVm | None = None, **how: bool
) -> Change:
    """`stray` is all that the bucket wants on the node."""

    async def read_bucket(_node: object) -> Mapping[str, bytes]:
        return {} if stray is None else {stray.key(): stray.to_bytes()}

    strays = Strays(scheduler.store, scheduler.desk, read_bucket)
    deleting = Deleting(scheduler.store, scheduler.handlers, strays, committed=lambda: None)
    return (await deleting.delete_node(DeleteNode(cluster=cluster, node=node, **how))).change


async def names(scheduler: Scheduler) -> list[str]:
    async with scheduler.store.rows() as rows:
        return [row.spec.name for row in await rows.nodes()]


@pytest.mark.parametrize("state", [NodeState.LOST, NodeState.APPLIED])
async def test_a_node_without_vms_that_is_not_heard_is_deleted_once(scheduler: Scheduler, state: NodeState) -> None:
    await is_lost(scheduler, state=state)
    assert await deleted(scheduler, dry_run=True) is Change.DELETED
    assert (await names(scheduler), await scheduler.sent()) == (["n1", "n2"], [])
    assert await deleted(scheduler) is Change.DELETED
    assert (await names(scheduler), await scheduler.sent()) == (["n2"], [NODE_KEY])
    assert await deleted(scheduler) is Change.UNCHANGED
    assert await scheduler.sent() == [NODE_KEY]
    await scheduler.is_made()
    assert await scheduler.home("vm1") == "n2"


async def test_a_node_that_is_heard_is_not_deleted(scheduler: Scheduler) -> None:
    with pytest.raises(Refused, match="node n1 is heard: stop its services, and delete it when node.list says") as it:
        await deleted(scheduler)
    assert it.value.code is Code.CONFLICT
    assert await names(scheduler) == ["n1", "n2"]


async def test_a_lost_node_with_vms_is_not_deleted_whatever_is_said_of_it(scheduler: Scheduler) -> None:
    for number in range(7):
        await scheduler.is_made(f"vm{number}", node="n1")
    await is_lost(scheduler)
    with pytest.raises(Refused) as refused:
        await deleted(scheduler, gone=True)
    assert refused.value.code is Code.IN_USE
    assert refused.value.sentence == (
        "node n1 has 7 VMs (vm0, vm1, vm2, vm3, vm4 and 2 more); node.drain moves them while it runs, node.evacuate "
        "when it is lost"
    )
    assert await names(scheduler) == ["n1", "n2"]


async def test_a_node_is_not_deleted_under_a_vm_that_is_only_on_its_way_from_it(scheduler: Scheduler) -> None:
    await is_on_n1(scheduler)
    await scheduler.handlers.migrate_requested(scheduler.migration())
    await is_lost(scheduler, "n2")
    with pytest.raises(Refused, match=r"node n2 has 1 VM \(vm1\)"):
        await deleted(scheduler, "n2")


async def test_a_vm_that_only_the_bucket_wants_there_is_removed_before_its_node_is(scheduler: Scheduler) -> None:
    record = await is_on_n1(scheduler)
    await scheduler.is_gone()
    await is_lost(scheduler)
    with pytest.raises(Refused, match=r"the bucket wants 1 VM \(vm1\) on node n1 that the scheduler does not know"):
        await deleted(scheduler, stray=record.desired, gone=True)


async def test_a_node_that_was_evacuated_is_deleted_with_the_word_that_it_does_not_come_back(
    scheduler: Scheduler,
) -> None:
    await is_on_n1(scheduler)
    await evacuated(scheduler)
    await scheduler.hears("iface.ready", "route.announced")
    with pytest.raises(Refused, match=r"has not let go of 1 VM \(vm1\): start it, and it does"):
        await deleted(scheduler)
    assert await deleted(scheduler, gone=True, dry_run=True) is Change.DELETED
    assert len(await left_behind(scheduler)) == 1
    assert await deleted(scheduler, gone=True) is Change.DELETED
    assert await left_behind(scheduler) == []
    assert (await scheduler.sent())[-3:] == [f"PURGE {OLD_KEY}", NEW_KEY, NODE_KEY]
    record = await known(scheduler, node="n2")
    assert (record.evacuated, record.desired and record.desired.presence) == (False, Presence.ROUTED)
    assert await names(scheduler) == ["n2"]
    await scheduler.has_node("n1", 1)
    assert await scheduler.used() == [0, record.request.cpu], "it begins as a new one"


async def test_a_node_of_an_unknown_cluster_is_not_called_deleted(scheduler: Scheduler) -> None:
    with pytest.raises(Refused, match="there is no cluster mks; there are: msk"):
        await deleted(scheduler, cluster="mks")
