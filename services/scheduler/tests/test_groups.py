"""VMs that want to be together, and VMs that want to be apart."""

import asyncio

from vmfabric.contract.admin import DrainNode, EvacuateNode, NodeState
from vmfabric.contract.vm import GroupKind, GroupRule, VmMigrateRequested
from vmfabric.scheduler.domain.changes import Heard, NodeKey
from vmfabric.scheduler.transaction import transaction

from .builders import START
from .seat import Scheduler

Rules = tuple[GroupRule, ...]


def apart(group: str = "db", *, hard: bool = True) -> Rules:
    return (GroupRule(group=group, kind=GroupKind.ANTI_AFFINITY, hard=hard),)


def together(group: str = "web", *, hard: bool = True) -> Rules:
    return (GroupRule(group=group, kind=GroupKind.AFFINITY, hard=hard),)


async def homes(scheduler: Scheduler, *vms: str) -> list[str | None]:
    return [await scheduler.home(vm) for vm in vms]


async def is_lost(scheduler: Scheduler, node: str) -> None:
    async with transaction(scheduler.store) as tx:
        tx.put_heard(NodeKey("msk", node), Heard(NodeState.LOST, START, ()))
    await scheduler.administration().evacuate_node(EvacuateNode(cluster="msk", node=node, fence="ipmi"))


async def reasons(scheduler: Scheduler, node: str) -> dict[str, str]:
    """Why VMs stay on a node that is drained."""
    asked = DrainNode(cluster="msk", node=node, dry_run=True)
    return {it.vm: it.reason for it in (await scheduler.administration().drain_node(asked)).staying}


async def test_vms_that_must_be_apart_never_share_a_node_however_many_come_at_once(scheduler: Scheduler) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(6):
            request = scheduler.request(f"vm{number}", cpu=1, groups=apart())
            group.create_task(scheduler.handlers.requested(request))
    found = [home for home in await homes(scheduler, *(f"vm{number}" for number in range(6))) if home]
    assert sorted(found) == ["n1", "n2"]
    assert sum(subject.startswith("vm.failed.") for subject in await scheduler.sent()) == 4


async def test_a_vm_that_is_gone_leaves_its_group_its_place(scheduler: Scheduler) -> None:
    for vm in ("vm1", "vm2"):
        await scheduler.is_made(vm, groups=apart())
    await scheduler.handlers.requested(scheduler.request("vm3", groups=apart()))
    assert await scheduler.home("vm3") is None
    left = await scheduler.home("vm1")
    await scheduler.is_gone("vm1")
    await scheduler.is_made("vm3", groups=apart())
    assert await scheduler.home("vm3") == left


async def test_vms_that_must_be_together_are_and_one_that_finds_no_room_there_is_refused(
    scheduler: Scheduler,
) -> None:
    for vm in ("vm1", "vm2", "vm3"):
        await scheduler.is_made(vm, cpu=5, groups=together())
    await scheduler.handlers.requested(scheduler.request("vm4", cpu=5, groups=together()))
    assert await homes(scheduler, "vm1", "vm2", "vm3", "vm4") == ["n1", "n1", "n1", None]


async def test_a_soft_rule_is_kept_while_it_can_be_and_then_gives_way(scheduler: Scheduler) -> None:
    for number in range(4):
        await scheduler.is_made(f"vm{number}", cpu=1, node="n1" if number == 0 else None, groups=apart(hard=False))
    assert await homes(scheduler, "vm0", "vm1") == ["n1", "n2"]
    assert sorted(await homes(scheduler, "vm2", "vm3"), key=str) == ["n1", "n2"]
    await scheduler.is_made("a", cpu=9, node="n1", groups=together(hard=False))
    await scheduler.is_made("b", cpu=4, groups=together(hard=False))
    await scheduler.is_made("c", cpu=4, groups=together(hard=False))
    assert await homes(scheduler, "b", "c") == ["n1", "n2"]


async def test_a_vm_that_wants_to_be_alone_keeps_later_ones_of_its_group_off_whatever_they_say(
    scheduler: Scheduler,
) -> None:
    await scheduler.is_made("vm1", node="n1", groups=apart("db"))
    await scheduler.handlers.requested(scheduler.request("vm2", node="n1", groups=together("db")))
    assert await scheduler.home("vm2") is None


async def test_groups_of_other_clusters_and_other_names_do_not_matter(scheduler: Scheduler) -> None:
    await scheduler.is_made("vm1", node="n1", groups=apart("db"))
    await scheduler.is_made("vm2", node="n1", groups=apart("mail"))
    assert await scheduler.home("vm2") == "n1"


async def test_a_migration_honours_groups_and_a_target_counts_from_its_beginning(scheduler: Scheduler) -> None:
    await scheduler.has_node("n3", 3)
    await scheduler.is_made("vm1", node="n1", groups=apart())
    await scheduler.is_made("vm2", node="n2", groups=apart())
    to_n2 = VmMigrateRequested(cluster="msk", vm="vm1", node="n2")
    await scheduler.handlers.migrate_requested(scheduler._message(to_n2, None))
    assert (await scheduler.sent())[-1] == "vm.failed.msk.vm1"
    await scheduler.handlers.migrate_requested(scheduler.migration("vm1"))
    record = await scheduler.record("vm1")
    assert record is not None
    assert record.nodes() == {"n1", "n3"}
    await scheduler.handlers.requested(scheduler.request("vm3", groups=apart()))
    assert await scheduler.home("vm3") is None


async def test_a_drain_says_of_a_vm_whose_group_is_everywhere_why_it_stays(scheduler: Scheduler) -> None:
    await scheduler.is_made("vm1", node="n2", groups=apart())
    await scheduler.is_made("vm2", groups=apart())
    assert await reasons(scheduler, "n1") == {"vm2": "no other node takes it: n2: it has VMs of group db: 1"}


async def test_an_evacuation_leaves_a_vm_where_it_is_rather_than_beside_its_group(scheduler: Scheduler) -> None:
    await scheduler.is_made("vm1", node="n2", groups=apart())
    await scheduler.is_made("vm2", groups=apart())
    await scheduler.is_made("vm3", groups=apart("other"))
    assert await homes(scheduler, "vm2", "vm3") == ["n1", "n1"]
    await is_lost(scheduler, "n1")
    await scheduler.sweep().once()
    assert await homes(scheduler, "vm2", "vm3") == ["n1", "n2"]
    await scheduler.is_gone("vm1")
    scheduler.clock.pass_(1)
    await scheduler.sweep().once()
    assert await scheduler.home("vm2") == "n2"


async def test_vms_that_must_be_together_leave_a_lost_node_together(scheduler: Scheduler) -> None:
    await scheduler.has_node("n3", 3)
    for vm in ("vm1", "vm2", "vm3"):
        await scheduler.is_made(vm, groups=together())
    assert await homes(scheduler, "vm1", "vm2", "vm3") == ["n1", "n1", "n1"]
    await is_lost(scheduler, "n1")
    await scheduler.sweep().once()
    assert await homes(scheduler, "vm1", "vm2", "vm3") == ["n2", "n2", "n2"]


async def test_an_evacuation_honours_labels(scheduler: Scheduler) -> None:
    await scheduler.has_node("n1", 1, labels={"disk": "nvme"})
    await scheduler.is_made("vm1", labels={"disk": "nvme"})
    await is_lost(scheduler, "n1")
    await scheduler.sweep().once()
    assert await scheduler.home("vm1") == "n1"
    await scheduler.has_node("n3", 3, labels={"disk": "nvme"})
    scheduler.clock.pass_(1)
    await scheduler.sweep().once()
    assert await scheduler.home("vm1") == "n3"
