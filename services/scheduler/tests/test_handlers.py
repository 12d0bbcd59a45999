"""What requests and facts do to the tables: over Postgres, and over the store that simulations use."""

import asyncio

import pytest

from vmfabric.contract.admin import DrainNode, UndrainNode, VmPhase
from vmfabric.contract.errors import Refused
from vmfabric.runtime.desired import KEY_SUBJECT
from vmfabric.scheduler.domain.record import Stamp, VmKey
from vmfabric.scheduler.memory_store import MemoryStore, Tables
from vmfabric.scheduler.transaction import Transaction, transaction

from .builders import START
from .seat import Scheduler

VM1 = VmKey("msk", "vm1")


async def test_two_hundred_requests_at_once_never_overcommit(scheduler: Scheduler) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(scheduler.handlers.requested(scheduler.request(f"vm{number}")))
    sent = await scheduler.sent()
    assert await scheduler.used() == [16, 16]
    assert sum(subject.startswith("vm.placed.") for subject in sent) == 16
    assert sum(subject.startswith("vm.failed.") for subject in sent) == 184


async def test_room_that_is_given_back_is_given_again(scheduler: Scheduler) -> None:
    for _ in range(3):
        await scheduler.is_made()
        assert sum(await scheduler.used()) == 2
        await scheduler.is_gone()
        assert await scheduler.used() == [0, 0]


async def test_two_desks_on_one_store_never_overcommit(scheduler: Scheduler) -> None:
    """The writer lock forbids it; the locks of the rows hold all the same."""
    other = Scheduler(scheduler.store, scheduler.sent)
    working = asyncio.create_task(other.desk.run())
    async with asyncio.TaskGroup() as group:
        for number in range(40):
            desk = (scheduler, other)[number % 2]
            group.create_task(desk.handlers.requested(desk.request(f"vm{number}")))
    working.cancel()
    assert await scheduler.used() == [16, 16]


async def test_generations_only_rise(scheduler: Scheduler) -> None:
    seen = []
    for _ in range(3):
        await scheduler.is_made()
        record = await scheduler.record()
        assert record is not None
        seen.append(record.generation)
        await scheduler.is_gone()
    assert seen == sorted(set(seen))


async def test_a_late_repetition_of_a_request_does_not_bring_a_deleted_vm_back(scheduler: Scheduler) -> None:
    request = scheduler.request()
    await scheduler.handlers.requested(request)
    await scheduler.hears("ip.allocated", "iface.ready", "route.announced")
    await scheduler.is_gone()
    before = await scheduler.sent()
    await scheduler.handlers.requested(request)
    assert await scheduler.record() is None
    assert await scheduler.sent() == before


async def test_a_late_repetition_of_a_delete_does_not_remove_a_vm_that_was_made_again(scheduler: Scheduler) -> None:
    await scheduler.is_made()
    deletion = scheduler.deletion()
    await scheduler.handlers.delete_requested(deletion)
    await scheduler.hears("route.withdrawn", "iface.removed", "ip.released")
    await scheduler.is_made()
    await scheduler.handlers.delete_requested(deletion)
    record = await scheduler.record()
    assert record is not None
    assert record.phase == "ready"


async def test_a_removal_that_a_later_migration_has_overtaken_is_served(scheduler: Scheduler) -> None:
    await scheduler.is_made()
    deletion, migration = scheduler.deletion(), scheduler.migration()
    await scheduler.handlers.migrate_requested(migration)
    await scheduler.handlers.delete_requested(deletion)
    record = await scheduler.record()
    assert record is not None
    assert record.delete_requested


async def test_a_guest_that_comes_to_a_target_which_lets_go_already_has_another_generation(
    scheduler: Scheduler,
) -> None:
    await scheduler.is_made()
    await scheduler.handlers.migrate_requested(scheduler.migration())
    await scheduler.handlers.delete_requested(scheduler.deletion())
    before = await scheduler.record()
    assert before is not None
    assert before.phase is VmPhase.RETURNING
    assert before.move is not None
    await scheduler.handlers.guest_running(scheduler.arrival(before.move.target))
    record = await scheduler.record()
    assert record is not None
    assert record.phase is VmPhase.SWITCHING
    assert record.desired is not None
    assert record.generation == record.desired.generation > before.move.generation


async def test_a_late_repetition_of_a_migration_does_not_move_the_vm_again(scheduler: Scheduler) -> None:
    await scheduler.is_made()
    impossible = scheduler.migration()
    await scheduler.administration().drain_node(DrainNode(cluster="msk", node="n2"))
    await scheduler.administration().drain_node(DrainNode(cluster="msk", node="n1"))
    await scheduler.handlers.migrate_requested(impossible)
    assert (await scheduler.sent())[-1] == "vm.failed.msk.vm1"
    for node in ("n1", "n2"):
        await scheduler.administration().undrain_node(UndrainNode(cluster="msk", node=node))
    await scheduler.handlers.migrate_requested(impossible)
    record = await scheduler.record()
    assert record is not None
    assert record.move is None


async def test_a_late_repetition_of_a_request_that_failed_is_not_served(scheduler: Scheduler) -> None:
    big = scheduler.request(cpu=17)
    await scheduler.handlers.requested(big)
    await scheduler.handlers.requested(big)
    assert [subject.split(".msk")[0] for subject in await scheduler.sent()] == ["vm.failed"]


async def test_two_requests_of_one_microsecond_are_told_apart_by_their_place_in_the_stream(
    scheduler: Scheduler,
) -> None:
    create, delete = scheduler.request(seconds=5), scheduler.deletion(seconds=5)
    await scheduler.handlers.requested(create)
    await scheduler.handlers.delete_requested(delete)
    await scheduler.hears("ip.released")
    assert await scheduler.record() is None
    assert (await scheduler.sent())[-1] == "vm.deleted.msk.vm1"
    await scheduler.handlers.requested(create)
    assert await scheduler.record() is None


async def test_a_last_request_is_forgotten_after_eight_days(scheduler: Scheduler) -> None:
    await scheduler.is_made()
    await scheduler.is_gone()
    sweep = scheduler.sweep()
    remembered = []
    for days in (0, 7, 2):
        scheduler.clock.pass_(days * 24 * 3600)
        await sweep.once()
        async with scheduler.store.rows() as rows:
            remembered.append(bool(await rows.last_requests([VM1])))
    assert remembered == [True, True, False]


async def test_a_request_in_progress_is_answered_once_when_it_is_ready(scheduler: Scheduler) -> None:
    await scheduler.handlers.requested(scheduler.request())
    await scheduler.handlers.requested(scheduler.request())
    await scheduler.hears("ip.allocated", "iface.ready", "route.announced")
    await scheduler.handlers.requested(scheduler.request())
    events = [subject for subject in await scheduler.sent() if not subject.startswith(KEY_SUBJECT)]
    assert events == ["vm.placed.msk.vm1", "vm.ready.msk.vm1", "vm.ready.msk.vm1"]


async def test_a_request_for_a_vm_that_is_being_removed_is_a_conflict(scheduler: Scheduler) -> None:
    await scheduler.is_made()
    await scheduler.handlers.delete_requested(scheduler.deletion())
    await scheduler.handlers.requested(scheduler.request())
    assert (await scheduler.sent())[-1] == "vm.failed.msk.vm1"
    await scheduler.hears("route.withdrawn", "iface.removed", "ip.released")
    assert (await scheduler.sent())[-1] == "vm.deleted.msk.vm1"


async def test_whoever_hears_that_a_vm_is_gone_finds_no_key_of_it(scheduler: Scheduler) -> None:
    await scheduler.is_made()
    await scheduler.is_gone()
    purged, deleted = (await scheduler.sent())[-2:]
    assert purged == f"PURGE {KEY_SUBJECT}vm.msk.n1.vm1"
    assert deleted == "vm.deleted.msk.vm1"


async def test_late_answers_are_asked_for_and_at_last_given_up(scheduler: Scheduler) -> None:
    await scheduler.handlers.requested(scheduler.request())
    sweep = scheduler.sweep()
    placed = []
    for _ in range(10):
        scheduler.clock.pass_(3)
        await sweep.once()
        placed.append((await scheduler.sent()).count("vm.placed.msk.vm1"))
    assert placed == [2, 2, 3, 3, 3, 3, 4, 4, 4, 4]
    assert (await scheduler.sent())[-1] == "vm.deleting.msk.vm1"


async def test_work_that_fails_takes_nothing_else_with_it(scheduler: Scheduler) -> None:
    async def fails(tx: Transaction) -> None:
        tx.keep_last_request(VM1, Stamp(START, 1))
        raise ZeroDivisionError

    jobs = [
        scheduler.handlers.requested(scheduler.request("vm2")),
        scheduler.desk.do(VM1, fails),
        scheduler.handlers.requested(scheduler.request("vm3")),
    ]
    ends = await asyncio.gather(*jobs, return_exceptions=True)
    assert ends[0] is None
    assert ends[2] is None
    assert isinstance(ends[1], ZeroDivisionError)
    assert await scheduler.record("vm2") is not None
    assert await scheduler.record("vm3") is not None
    async with scheduler.store.rows() as rows:
        assert not await rows.last_requests([VM1])


async def test_a_process_that_dies_before_the_commit_has_changed_nothing(scheduler: Scheduler) -> None:
    reached = asyncio.Event()

    async def dies() -> None:
        async with transaction(scheduler.store) as tx:
            assert await tx.vm(VM1) is None
            await scheduler.handlers._requested(tx, scheduler.request())
            reached.set()
            await asyncio.Event().wait()

    dying = asyncio.create_task(dies())
    await reached.wait()
    dying.cancel()
    await asyncio.wait({dying})
    assert await scheduler.record() is None
    assert await scheduler.used() == [0, 0]
    assert await scheduler.sent() == []
    await scheduler.is_made()


async def test_a_row_that_one_holds_another_waits_for(scheduler: Scheduler) -> None:
    await scheduler.is_made()
    held, order = asyncio.Event(), list[str]()

    async def first() -> None:
        async with transaction(scheduler.store) as tx:
            await tx.vm(VM1)
            held.set()
            for _ in range(20):
                await asyncio.sleep(0)
            order.append("first")

    async def second() -> None:
        await held.wait()
        async with transaction(scheduler.store) as tx:
            await tx.vm(VM1)
            order.append("second")

    await asyncio.gather(first(), second())
    assert order == ["first", "second"]


async def test_a_database_that_is_away_is_said_to_all_that_wait() -> None:
    async def away() -> None:
        raise ConnectionRefusedError

    scheduler = Scheduler(MemoryStore(Tables(), round_trip=away), lambda: asyncio.sleep(0, []))
    working = asyncio.create_task(scheduler.desk.run())
    jobs = [scheduler.handlers.requested(scheduler.request(f"vm{number}")) for number in range(5)]
    ends = await asyncio.gather(*jobs, return_exceptions=True)
    working.cancel()
    assert [type(end) for end in ends] == [ConnectionRefusedError] * 5


async def test_a_drain_asks_for_a_few_at_a_time_and_names_those_that_stay(scheduler: Scheduler) -> None:
    for number in range(1, 5):
        await scheduler.handlers.requested(scheduler.request(f"vm{number}", cpu=1))
        await scheduler.hears("ip.allocated", "iface.ready", "route.announced", vm=f"vm{number}")
    await scheduler.handlers.requested(scheduler.request("pinned", node="n1", cpu=1))
    await scheduler.hears("ip.allocated", "iface.ready", "route.announced", vm="pinned")
    on_n1 = [f"vm{number}" for number in range(1, 5) if await scheduler.home(f"vm{number}") == "n1"]
    assert len(on_n1) == 2
    drained = await scheduler.administration().drain_node(DrainNode(cluster="msk", node="n1", parallel=1))
    assert (drained.vms, [it.vm for it in drained.staying]) == (3, ["pinned"])
    sweep = scheduler.sweep()
    for _ in range(3):
        await sweep.once()
    asked = [subject for subject in await scheduler.sent() if subject.startswith("vm.migrate.requested")]
    assert asked == [f"vm.migrate.requested.msk.{on_n1[0]}"], "one at a time, and each once"
    assert (await scheduler.sent()).count("node.draining.msk.n1") == 1, "said when it changes"
    scheduler.clock.pass_(31)
    await sweep.once()
    asked = [subject for subject in await scheduler.sent() if subject.startswith("vm.migrate.requested")]
    assert asked[1:] == [f"vm.migrate.requested.msk.{on_n1[1]}"], "one that does not move is not in the way"


async def test_a_drained_node_is_not_chosen_until_the_drain_ends(scheduler: Scheduler) -> None:
    await scheduler.administration().drain_node(DrainNode(cluster="msk", node="n1"))
    await scheduler.sweep().once()
    assert (await scheduler.sent())[-1] == "node.drained.msk.n1"
    for number in range(4):
        await scheduler.is_made(f"vm{number}")
        assert await scheduler.home(f"vm{number}") == "n2"
    await scheduler.handlers.requested(scheduler.request("pinned", node="n1"))
    assert (await scheduler.sent())[-1] == "vm.failed.msk.pinned"
    await scheduler.administration().undrain_node(UndrainNode(cluster="msk", node="n1"))
    await scheduler.is_made("vm9")
    assert await scheduler.home("vm9") == "n1"


async def test_a_node_that_goes_down_is_told_so_and_told_when_it_stays(scheduler: Scheduler) -> None:
    administration = scheduler.administration()
    answers = [
        await administration.drain_node(DrainNode(cluster="msk", node="n1", going_down=True, dry_run=True)),
        await administration.drain_node(DrainNode(cluster="msk", node="n1", going_down=True)),
        await administration.drain_node(DrainNode(cluster="msk", node="n1", going_down=True)),
        await administration.undrain_node(UndrainNode(cluster="msk", node="n1")),
    ]
    assert [answer.change for answer in answers] == ["changed", "changed", "unchanged", "changed"]
    assert (await scheduler.sent()).count(f"{KEY_SUBJECT}node.msk.n1") == 2
    with pytest.raises(Refused, match=r"no node n7 in cluster msk"):
        await administration.drain_node(DrainNode(cluster="msk", node="n7"))
