"""What operators are told of pools and of the past, over both stores."""

from datetime import datetime, timedelta
from ipaddress import ip_network

import pytest
from ipam_world import QUARANTINE, InMemoryWorld, PostgresWorld, World, wish
from pydantic import ValidationError

from vmfabric.contract.addresses import Family, parse_host
from vmfabric.contract.addressing import AddressHistory, AskHistory, AskUsage, FamilyUsage, Trend
from vmfabric.contract.errors import Code, Refused
from vmfabric.ipam import reporting


async def usage(world: World, family: Family = Family.IPV4) -> FamilyUsage:
    (pool,) = (await world.reporting.report_usage(AskUsage(pool="web"))).pools
    return pool.families[family]


async def history(
    world: World, address: str, at: datetime | None = None, until: datetime | None = None
) -> AddressHistory:
    return await world.reporting.tell_history(AskHistory(address=parse_host(address), at=at, until=until))


class Promises:
    """Each is run over both stores."""

    async def test_every_address_of_a_pool_is_counted_once_and_the_largest_free_block_is_named(
        self, world: World
    ) -> None:
        await world.network("10.0.0.0/8", gateway="10.0.0.1")
        await world.pool("10.0.0.0/28", "2001:db8::/64", exclude=("10.0.0.0/32", "2001:db8::/127"))
        for number in range(3):
            await world.place(f"vm{number}")
        await world.release("vm1")
        await world.reserve("10.0.0.7")
        four, six = await usage(world), await usage(world, Family.IPV6)
        assert (four.free, four.used, four.quarantined, four.reserved, four.excluded) == (10, 2, 1, 1, 2)
        assert four.largest_free_block == ip_network("10.0.0.8/29")
        assert (six.free, six.used, six.quarantined, six.reserved, six.excluded) == (2**64 - 5, 2, 1, 0, 2)
        assert six.largest_free_block == ip_network("2001:db8:0:0:8000::/65")

    async def test_what_lies_in_no_range_is_never_given_and_counts_as_excluded(self, world: World) -> None:
        await world.pool("10.0.0.0/28", ranges={"n1": "10.0.0.0-10.0.0.1", "n2": "10.0.0.4-10.0.0.7"})
        found = await usage(world)
        assert (found.free, found.excluded, found.largest_free_block) == (6, 10, ip_network("10.0.0.4/30"))

    async def test_the_largest_free_block_may_lie_in_ranges_of_several_nodes_listed_in_any_order(
        self, world: World
    ) -> None:
        ranges = {"n1": "10.0.0.12-10.0.0.15,10.0.0.4-10.0.0.5", "n2": "10.0.0.0-10.0.0.3", "n3": "10.0.0.6-10.0.0.7"}
        await world.pool("10.0.0.0/28", ranges=ranges)
        assert (await usage(world)).largest_free_block == ip_network("10.0.0.0/29")

    async def test_the_forecast_follows_from_what_was_given_and_given_back_in_the_last_day_and_week(
        self, world: World
    ) -> None:
        await world.pool("10.0.0.0/24")
        for number in range(9):
            await world.place(f"old{number}")
        world.clock.pass_by(3 * 86400)
        for number in range(6):
            await world.place(f"new{number}")
        await world.release("new1")
        await world.release("old1")
        found, now = await usage(world), world.clock.now()
        day, three, week = (timedelta(days=days) for days in (1, 3, 7))
        assert found.free == 241
        assert found.last_day == Trend(net_allocated=4, since=now - day, runs_out_at=now + day * 241 / 4)
        assert found.last_week == Trend(net_allocated=13, since=now - three, runs_out_at=now + three * 241 / 13)
        world.clock.pass_by(8 * 86400)
        assert (await usage(world)).last_week == Trend(net_allocated=0, since=world.clock.now() - week)

    async def test_of_a_pool_of_which_nothing_was_heard_the_forecast_says_so(self, world: World) -> None:
        await world.pool("10.0.0.0/32", "2001:db8::/64")
        assert (await usage(world)).last_week == Trend(net_allocated=0)
        await world.place("vm1", 1, wish())
        now = world.clock.now()
        assert (await usage(world)).last_day == Trend(net_allocated=1, since=now, runs_out_at=now)
        assert (await usage(world, Family.IPV6)).last_day == Trend(net_allocated=0)

    async def test_everybody_who_had_an_address_on_a_day_is_named(self, world: World) -> None:
        await world.pool("10.0.0.0/32")
        hour, began = timedelta(hours=1), world.clock.now()
        for number in range(4):
            await world.place(f"vm{number}")
            world.clock.pass_by(3600)
            await world.release(f"vm{number}")
            world.clock.pass_by(3600)
            await world.writer.end_rests()

        async def named(at: datetime, until: datetime) -> list[str]:
            sentence = (await history(world, "10.0.0.0", at, until)).sentence
            return [f"vm{number}" for number in range(4) if f"VM vm{number} of cluster msk from " in sentence]

        assert await named(began, began + 8 * hour) == ["vm0", "vm1", "vm2", "vm3"]
        early = await history(world, "10.0.0.0", began - 9 * hour, began - hour)
        begins = f"what is remembered of it begins at {began.isoformat(timespec='seconds')}"
        assert f"no VM had 10.0.0.0; {begins}" in early.sentence
        with pytest.raises(Refused, match="nobody knows who will have 10.0.0.0"):
            await history(world, "10.0.0.0", world.clock.now() + hour)
        assert await named(began + 1 * hour, began + 3 * hour) == ["vm1"], "one had let go, one has not come"
        assert await named(began + 2.5 * hour, began + 4 * hour) == ["vm1", "vm2"]
        assert (
            "no VM had 10.0.0.0" in (await history(world, "10.0.0.0", began + 1 * hour, began + 1.5 * hour)).sentence
        )
        with pytest.raises(ValidationError, match="`until` is a moment after `at`"):
            await history(world, "10.0.0.0", began, began - hour)

    async def test_of_very_many_who_had_an_address_the_first_are_named_and_it_is_said_that_there_are_more(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reporting, "_BETWEEN", 4)
        await world.pool("10.0.0.0/32")
        began = world.clock.now()
        for number in range(4):
            world.clock.pass_by(10)
            await world.place(f"vm{number}")
            world.clock.pass_by(10)
            await world.release(f"vm{number}")
            world.clock.pass_by(QUARANTINE)
            await world.writer.end_rests()
        await world.reserve("10.0.0.0")
        told = await history(world, "10.0.0.0", began, world.clock.now())
        assert [f"vm{number}" in told.sentence for number in range(4)] == [True, True, False, False]
        again = began + timedelta(seconds=40 + QUARANTINE)
        assert f"That is all until {again.isoformat(timespec='seconds')}; more is known" in told.sentence
        monkeypatch.setattr(reporting, "_BETWEEN", 5)
        told = await history(world, "10.0.0.0", again, world.clock.now())
        assert [f"vm{number}" in told.sentence for number in range(4)] == [False, False, True, True]
        assert "It was reserved for bob since" in told.sentence

    async def test_pools_are_reported_by_cluster_and_name(self, world: World) -> None:
        await world.pool("10.0.0.0/24")
        await world.pool("10.0.1.0/24", name="far", cluster="spb")
        every = await world.reporting.report_usage(AskUsage())
        assert [pool.pool for pool in every.pools] == ["far", "web"]
        assert [it.pool for it in (await world.reporting.report_usage(AskUsage(cluster="spb"))).pools] == ["far"]
        with pytest.raises(Refused, match="there is no pool nope") as refused:
            await world.reporting.report_usage(AskUsage(pool="nope"))
        assert refused.value.code is Code.UNKNOWN_POOL

    async def test_who_had_an_address_on_a_day_is_told_long_after_the_vm_has_gone(self, world: World) -> None:
        await world.pool("10.0.0.0/32")
        first = world.clock.now()
        await world.place("vm1")
        world.clock.pass_by(3600)
        await world.release("vm1")
        world.clock.pass_by(QUARANTINE)
        await world.writer.end_rests()
        await world.place("vm2")
        world.clock.pass_by(86400)
        told = await history(world, "10.0.0.0", first + timedelta(minutes=10))
        assert told.sentence == (
            "At 2030-01-01T00:10:00+00:00 VM vm1 of cluster msk had 10.0.0.0, "
            "from 2030-01-01T00:00:00+00:00 to 2030-01-01T01:00:00+00:00."
        )
        assert told.holder is not None
        assert (told.holder.vm, told.holder.node, told.holder.since) == ("vm1", "n1", first)
        assert [(it.vm, it.until is None) for it in told.tenures] == [("vm2", True), ("vm1", False)]
        resting = await history(world, "10.0.0.0", first + timedelta(seconds=3600))
        assert resting.holder is None
        assert "no VM had 10.0.0.0; VM vm1 of cluster msk had it last" in resting.sentence
        assert (await history(world, "10.0.0.0")).sentence.endswith("VM vm2 of cluster msk had 10.0.0.0, since "
                                                                    "2030-01-01T01:05:00+00:00.")  # fmt: skip
        early = await history(world, "10.0.0.0", first - timedelta(seconds=1))
        assert early.sentence.endswith("no VM had 10.0.0.0; what is remembered of it begins at "
                                       "2030-01-01T00:00:00+00:00.")  # fmt: skip

    async def test_for_whom_it_was_reserved_is_told_beside_who_had_it(self, world: World) -> None:
        await world.pool("10.0.0.0/24")
        await world.reserve("10.0.0.5", for_vm="vm1", note="ticket 12")
        world.clock.pass_by(60)
        await world.place("vm1", 1, wish(address="10.0.0.5"))
        world.clock.pass_by(60)
        await world.release("vm1")
        await world.end_reservation("10.0.0.5")
        await world.reserve("10.0.0.5", owner="alice")
        begin = world.clock.now() - timedelta(seconds=120)
        kept = await history(world, "10.0.0.5", begin)
        assert kept.holder is None
        assert kept.sentence.endswith("no VM had 10.0.0.5. It was reserved for bob.")
        had = await history(world, "10.0.0.5", begin + timedelta(seconds=90))
        assert had.holder is not None
        assert had.reserved is not None
        assert (had.holder.vm, had.reserved.owner, had.reserved.note) == ("vm1", "bob", "ticket 12")
        assert "reserved for alice" in (await history(world, "10.0.0.5")).sentence

    async def test_of_an_address_with_very_many_owners_the_ones_around_the_moment_are_told(
        self, world: World
    ) -> None:
        await world.pool("10.0.0.0/32")
        began = world.clock.now()
        for number in range(120):
            await world.place(f"vm{number}")
            world.clock.pass_by(60)
            await world.release(f"vm{number}")
            world.clock.pass_by(QUARANTINE)
            await world.writer.end_rests()
        told = await history(world, "10.0.0.0", began + timedelta(seconds=60 * (60 + QUARANTINE)))
        assert told.holder is not None
        assert told.holder.vm == "vm60"
        assert told.holder.until is not None
        assert 60 < len(told.tenures) < 110

    async def test_however_long_ago_a_vm_got_its_address_or_somebody_reserved_it_both_are_told(
        self, world: World
    ) -> None:
        await world.pool("10.0.0.0/24")
        await world.reserve("10.0.0.0", for_vm="vm1")
        await world.place("vm1", 1, wish(address="10.0.0.0"))
        began = world.clock.now()
        world.clock.pass_by(401 * 86400)
        await self.forget(world)
        told = await history(world, "10.0.0.0")
        assert told.sentence == (
            "At 2031-02-06T00:00:00+00:00 VM vm1 of cluster msk had 10.0.0.0, since 2030-01-01T00:00:00+00:00. "
            "It was reserved for bob."
        )
        assert [(it.vm, it.owner, it.since) for it in told.tenures] == [("vm1", None, began), ("vm1", "bob", began)]

    async def test_what_has_ended_long_ago_is_forgotten_beside_what_goes_on(self, world: World) -> None:
        await world.pool("10.0.0.0/32")
        await world.reserve("10.0.0.0", for_vm="vm1")
        await world.place("vm1", 1, wish(address="10.0.0.0"))
        await world.release("vm1")
        await world.end_reservation("10.0.0.0")
        world.clock.pass_by(QUARANTINE)
        await world.writer.end_rests()
        await world.place("vm2")
        world.clock.pass_by(401 * 86400)
        await self.forget(world)
        assert [(it.vm, it.owner) for it in (await history(world, "10.0.0.0")).tenures] == [("vm2", None)]
        assert [it.what for it in await world.records.history(parse_host("10.0.0.0"), 100)] == ["allocated"]

    async def test_what_is_held_and_reserved_now_is_told_though_its_beginning_was_forgotten(
        self, world: World
    ) -> None:
        await world.pool("10.0.0.0/24")
        await world.reserve("10.0.0.0", for_vm="vm1")
        await world.place("vm1", 1, wish(address="10.0.0.0"))
        await self.lose_history(world)
        sentence = (await history(world, "10.0.0.0")).sentence
        assert "VM vm1 of cluster msk had 10.0.0.0, since before what is remembered. It was reserved" in sentence

    async def test_a_hold_that_is_renewed_very_often_hides_nobody_and_began_once(self, world: World) -> None:
        await world.pool("10.0.0.0/24")
        began = world.clock.now()
        await world.place("vm1")
        for number in range(101):
            await world.reserve("10.0.0.0", for_vm="vm1", note=f"ticket {number}", expires_in_seconds=600)
            world.clock.pass_by(60)
        told = await history(world, "10.0.0.0")
        assert told.holder is not None
        assert told.reserved is not None
        assert (told.holder.vm, told.holder.since) == ("vm1", began)
        assert (told.reserved.since, told.reserved.note) == (began, "ticket 100")
        world.clock.pass_by(600)
        await world.writer.end_holds()
        ended = (await history(world, "10.0.0.0")).tenures[-1]
        assert (ended.since, ended.note, ended.until) == (began, "ticket 100", world.clock.now())

    @staticmethod
    async def forget(world: World) -> None:
        before = world.clock.now() - timedelta(days=400)
        await world.store.forget(fences_before=before, history_before=before)

    @staticmethod
    async def lose_history(world: World) -> None:
        """As an ipam did that forgot by age alone."""
        if isinstance(world, PostgresWorld):
            await world.pool_of_connections.execute("DELETE FROM history")
        if isinstance(world, InMemoryWorld):
            world.memory.written_history.clear()


class TestInMemory(Promises):
    @pytest.fixture
    def world(self, in_memory: World) -> World:
        return in_memory


class TestPostgres(Promises):
    @pytest.fixture
    def world(self, in_postgres: World) -> World:
        return in_postgres
