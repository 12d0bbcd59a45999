"""A database that is older than what was done with a newer one."""

import asyncio
from functools import partial

import pytest

from vmfabric.contract.desired import HandedOut, Presence
from vmfabric.contract.errors import Code, TryAgain
from vmfabric.runtime.desired import KEY_SUBJECT
from vmfabric.runtime.service import Interrupted
from vmfabric.scheduler import standing
from vmfabric.scheduler.standing import BehindError, check_standing

from .seat import Scheduler
from .test_republish import a_desired, found


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "_AGAIN_SECONDS", 0.0)


async def check(scheduler: Scheduler, *generations: int, accepted: int = 0) -> None:
    values = [a_desired(f"vm{generation}", generation) for generation in generations]

    async def bucket() -> dict[str, bytes]:
        return {value.key(): value.to_bytes() for value in values} | {"vm.msk.n1.strange": b"not ours"}

    await check_standing(scheduler.store, bucket, accepted=accepted)


async def last_generation(scheduler: Scheduler) -> int:
    async with scheduler.store.rows() as rows:
        return await rows.last_generation()


async def test_one_that_has_forgotten_a_removal_is_not_used(scheduler: Scheduler) -> None:
    await scheduler.is_made()
    forgetful = await last_generation(scheduler)
    await scheduler.is_gone()
    assert f"{KEY_SUBJECT}scheduler" in await scheduler.sent()
    removed = HandedOut(generation=await last_generation(scheduler))
    assert removed.generation > forgetful

    async def bucket(said: HandedOut) -> dict[str, bytes]:
        return {said.key(): said.to_bytes()}

    await check_standing(scheduler.store, partial(bucket, removed), accepted=0)
    next_one = HandedOut(generation=removed.generation + 1)
    with pytest.raises(BehindError, match=f"a VM was removed with generation {next_one.generation}"):
        await check_standing(scheduler.store, partial(bucket, next_one), accepted=0)


async def test_one_that_knows_all_is_used(scheduler: Scheduler) -> None:
    await check(scheduler)
    await scheduler.is_made()
    record = await scheduler.record()
    assert record is not None
    await check(scheduler, record.generation)


async def test_one_that_is_behind_is_not_used_and_says_what_to_do(scheduler: Scheduler) -> None:
    await scheduler.is_made()
    with pytest.raises(BehindError, match=r"n1 was told of vm70 with generation 70.*VMFABRIC_ACCEPTED_GENERATION=70"):
        await check(scheduler, 3, 70)
    with pytest.raises(BehindError):
        await check(scheduler, 70, accepted=69)


async def test_one_that_is_accepted_gives_no_generation_twice(scheduler: Scheduler) -> None:
    await check(scheduler, 70, accepted=70)
    await check(scheduler, 70)
    await scheduler.is_made()
    record = await scheduler.record()
    assert record is not None
    assert record.generation > 70


async def test_without_the_bucket_nobody_can_tell(scheduler: Scheduler) -> None:
    async def away() -> dict[str, bytes]:
        await asyncio.sleep(0)
        raise TryAgain(Code.INTERNAL, "the bucket cannot be read")

    with pytest.raises(Interrupted, match="cannot be seen"):
        await check_standing(scheduler.store, away, accepted=0)


def test_of_a_vm_that_was_done_more_with_nothing_older_is_published() -> None:
    known, moved = a_desired(generation=3), a_desired(generation=7, node="n2")
    assert found(known=[known], bucket=[moved]).newer() == {("msk", "vm1")}
    assert found(known=[known, moved], bucket=[moved]).newer() == set()
    assert found(known=[known], bucket=[moved.model_copy(update={"presence": Presence.ABSENT})]).newer() == set()
