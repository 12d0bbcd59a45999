"""The writer's promises, kept over both stores."""

import asyncio
from datetime import timedelta
from ipaddress import ip_address

import asyncpg
import pytest
from ipam_world import QUARANTINE, World, running, wish

from vmfabric.contract.addresses import Family
from vmfabric.contract.envelope import Trace
from vmfabric.contract.errors import Code
from vmfabric.contract.ip import IpAllocated, IpExhausted, IpRefused, IpReleased
from vmfabric.contract.vm import AddressWish
from vmfabric.ipam.domain.changes import Changes
from vmfabric.ipam.domain.lease import Said, VmKey
from vmfabric.ipam.domain.leasing import Notice
from vmfabric.ipam.memory_store import TwiceError


class Promises:
    """Each is run over both stores."""

    async def test_the_lowest_free_address_of_each_family_comes_first(self, world: World) -> None:
        await world.pool("10.0.0.0/24", "2001:db8::/64", exclude=("10.0.0.0/31",))
        assert await world.place("vm1") == ["10.0.0.2", "2001:db8::"]
        assert await world.place("vm2") == ["10.0.0.3", "2001:db8::1"]

    async def test_the_same_placement_again_has_the_same_answer(self, world: World) -> None:
        await world.pool("10.0.0.0/24", "2001:db8::/64")
        wishes = (wish("ipv6"), wish(), wish(address="10.0.0.9"))
        first = await world.hear(Said.PLACED, "vm1", 1, *wishes)
        assert await world.hear(Said.PLACED, "vm1", 1, *wishes) == first
        assert [str(each.address) for each in first[0].addresses] == ["2001:db8::", "10.0.0.0", "10.0.0.9"]  # type: ignore[attr-defined]

    async def test_placements_heard_at_once_get_different_addresses_and_a_repetition_the_same(
        self, world: World
    ) -> None:
        await world.pool("10.0.0.0/24")
        notices = [Notice(Said.PLACED, VmKey("msk", f"vm{n % 50}"), "n1", 1, Trace.new()) for n in range(100)]
        await asyncio.gather(*(world.writer.hear(notice) for notice in notices))
        by_vm: dict[str, set[str]] = {}
        for event in await world.said():
            assert isinstance(event, IpAllocated)
            by_vm.setdefault(event.vm, set()).update(str(each.address) for each in event.addresses)
        assert sorted(by_vm.values(), key=min) == sorted(({f"10.0.0.{n}"} for n in range(50)), key=min)

    @pytest.mark.parametrize("first", [Said.DELETING, Said.REMOVED])
    async def test_addresses_are_released_when_both_have_let_go_in_either_order(
        self, world: World, first: Said
    ) -> None:
        await world.pool("10.0.0.0/24")
        await world.place("vm1")
        second = {Said.DELETING: Said.REMOVED, Said.REMOVED: Said.DELETING}[first]
        assert await world.hear(first, "vm1") == []
        (released,) = await world.hear(second, "vm1")
        assert isinstance(released, IpReleased)
        assert [str(address) for address in released.addresses] == ["10.0.0.0"]

    async def test_a_vm_that_was_never_wired_is_released_at_once(self, world: World) -> None:
        await world.pool("10.0.0.0/24")
        await world.place("vm1")
        (released,) = await world.hear(Said.DELETING_UNWIRED, "vm1")
        assert isinstance(released, IpReleased)
        assert [str(address) for address in released.addresses] == ["10.0.0.0"]

    async def test_a_delete_asked_again_after_the_release_has_the_same_answer(self, world: World) -> None:
        await world.pool("10.0.0.0/24", "2001:db8::/64")
        await world.place("vm1")
        await world.hear(Said.DELETING, "vm1")
        released = await world.hear(Said.REMOVED, "vm1")
        assert await world.hear(Said.DELETING, "vm1") == released

    async def test_a_placement_that_comes_after_its_delete_gets_nothing(self, world: World) -> None:
        await world.pool("10.0.0.0/24")
        (released,) = await world.hear(Said.DELETING, "vm1", 2)
        assert isinstance(released, IpReleased)
        assert released.addresses == ()
        assert await world.hear(Said.PLACED, "vm1", 2) == await world.hear(Said.PLACED, "vm1", 1) == []
        assert await world.place("vm1", 3) == ["10.0.0.0"]

    async def test_the_removal_of_another_generation_releases_nothing(self, world: World) -> None:
        await world.pool("10.0.0.0/24")
        await world.place("vm1", 2)
        assert await world.hear(Said.DELETING, "vm1", 2) == []
        assert await world.hear(Said.REMOVED, "vm1", 1) == await world.hear(Said.REMOVED, "vm1", 3) == []

    async def test_a_vm_placed_anew_while_it_holds_addresses_keeps_them(self, world: World) -> None:
        await world.pool("10.0.0.0/24")
        await world.place("vm1", 1)
        (moved,) = await world.hear(Said.PLACED, "vm1", 2, node="n2")
        assert isinstance(moved, IpAllocated)
        assert (moved.node, moved.generation, str(moved.addresses[0].address)) == ("n2", 2, "10.0.0.0")
        record = await world.records.record(ip_address("10.0.0.0"))
        assert record is not None
        assert (record.node, record.generation, record.state) == ("n2", 2, "allocated")

    async def test_a_released_address_is_not_given_again_before_its_quarantine_ends(self, world: World) -> None:
        await world.pool("10.0.0.0/31")
        assert await world.place("vm1") == ["10.0.0.0"]
        assert await world.release("vm1") == ["10.0.0.0"]
        world.clock.pass_by(QUARANTINE - 1)
        await world.writer.end_rests()
        assert await world.place("vm2") == ["10.0.0.1"]
        assert await world.place("vm3") == [Code.POOL_EXHAUSTED]
        world.clock.pass_by(1)
        await world.writer.end_rests()
        assert await world.place("vm3", 2) == ["10.0.0.0"]

    async def test_a_quarantine_goes_on_where_it_was_after_a_restart(self, world: World) -> None:
        await world.pool("10.0.0.0/32")
        await world.place("vm1")
        await world.release("vm1")
        world.clock.pass_by(QUARANTINE - 1)
        world.restart()
        async with running(world.writer):
            await world.writer.end_rests()
            assert await world.place("vm2") == [Code.POOL_EXHAUSTED]
            world.clock.pass_by(1)
            await world.writer.end_rests()
            assert await world.place("vm2", 2) == ["10.0.0.0"]

    async def test_a_full_pool_is_said_with_what_rests_in_it(self, world: World) -> None:
        await world.pool("10.0.0.0/31")
        await world.place("vm1")
        await world.place("vm2")
        await world.release("vm1")
        exhausted, refused = await world.hear(Said.PLACED, "vm3")
        assert exhausted == IpExhausted(cluster="msk", pool="web", family=Family.IPV4, quarantined=1)
        assert isinstance(refused, IpRefused)
        assert "pool web of cluster msk has no free one; 1 rest in quarantine" in refused.message

    async def test_a_vm_that_cannot_have_all_it_wants_holds_nothing(self, world: World) -> None:
        await world.pool("10.0.0.0/24", "2001:db8::/128")
        await world.place("vm1")
        assert await world.place("vm2") == [Code.POOL_EXHAUSTED]
        assert await world.place("vm3", 1, wish()) == ["10.0.0.1"]

    async def test_the_next_pool_of_the_cluster_is_asked_when_the_first_is_full(self, world: World) -> None:
        await world.pool("10.0.1.0/24", name="b")
        await world.pool("10.0.0.0/32", name="a")
        assert [await world.place("vm1"), await world.place("vm2")] == [["10.0.0.0"], ["10.0.1.0"]]

    @pytest.mark.parametrize(
        ("asked", "code", "sentence"),
        [
            (wish(pool="none"), Code.UNKNOWN_POOL, "there is no such pool; cluster msk has web"),
            (wish(pool="far"), Code.UNKNOWN_POOL, "it belongs to cluster spb; cluster msk has web"),
            (wish("ipv6"), Code.FAMILY_NOT_IN_POOL, "pool web of cluster msk has no ipv6 block"),
            (
                wish(address="10.0.9.1"),
                Code.UNKNOWN_ADDRESS,
                "10.0.9.1 is wanted, but it lies in no block of pool web",
            ),
            (wish(address="10.0.0.1"), Code.ADDRESS_EXCLUDED, "pool web excludes it"),
            (wish(address="10.0.0.2"), Code.ADDRESS_TAKEN, "10.0.0.2 is wanted, but it is taken"),
            (wish(address="10.0.0.3"), Code.ADDRESS_QUARANTINED, "rests until 2030-01-01T00:05:00+00:00"),
        ],
    )
    async def test_what_cannot_be_given_is_refused_with_its_code_and_a_sentence(
        self, world: World, asked: AddressWish, code: Code, sentence: str
    ) -> None:
        await world.pool("10.0.0.0/24", exclude=("10.0.0.0/31",))
        await world.pool("10.0.9.0/24", name="far", cluster="spb")
        await world.place("vm2")
        await world.place("vm3")
        await world.release("vm3")
        (refused,) = await world.hear(Said.PLACED, "vm4", 1, asked)
        assert isinstance(refused, IpRefused)
        assert refused.code is code
        assert sentence in refused.message

    async def test_a_cluster_without_a_pool_is_refused(self, world: World) -> None:
        assert await world.place("vm1") == [Code.UNKNOWN_POOL]

    async def test_a_chosen_address_is_given_and_never_again(self, world: World) -> None:
        await world.pool("10.0.0.0/30")
        assert await world.place("vm1", 1, wish(address="10.0.0.1")) == ["10.0.0.1"]
        given = [await world.place(f"other{number}") for number in range(4)]
        assert given == [["10.0.0.0"], ["10.0.0.2"], ["10.0.0.3"], [Code.POOL_EXHAUSTED]]

    async def test_a_vm_that_wants_several_gets_the_one_it_chose_beside_the_lowest_in_its_own_order(
        self, world: World
    ) -> None:
        await world.pool("10.0.0.0/30", "2001:db8::/64", name="a")
        await world.pool("10.0.1.0/24", name="b")
        wishes = (wish(), wish("ipv6"), wish(address="10.0.0.0"), wish(pool="a"), wish(pool="b"), wish("ipv6"))
        given = await world.place("vm1", 1, *wishes)
        assert given == ["10.0.0.2", "2001:db8::", "10.0.0.0", "10.0.0.1", "10.0.1.0", "2001:db8::1"]
        assert await world.release("vm1") == given

    async def test_a_wish_for_any_pool_leaves_the_last_address_of_a_pool_to_the_wish_that_names_it(
        self, world: World
    ) -> None:
        await world.pool("10.0.0.0/32", name="a")
        await world.pool("10.0.1.0/24", name="b")
        assert await world.place("vm1", 1, wish(), wish(pool="a")) == ["10.0.1.0", "10.0.0.0"]

    async def test_where_a_pool_has_ranges_a_vm_gets_addresses_of_the_range_of_its_node_only(
        self, world: World
    ) -> None:
        await world.pool("10.0.0.0/24", ranges={"n1": "10.0.0.8-10.0.0.9", "n2": "10.0.0.2-10.0.0.3,10.0.0.20"})
        placed = [await world.place(f"vm{number}", node="n1") for number in range(3)]
        assert placed == [["10.0.0.8"], ["10.0.0.9"], [Code.POOL_EXHAUSTED]]
        placed = [await world.place(f"other{number}", node="n2") for number in range(3)]
        assert placed == [["10.0.0.2"], ["10.0.0.3"], ["10.0.0.20"]]
        assert await world.place("stranger", node="n3") == [Code.POOL_EXHAUSTED]

    async def test_a_full_range_is_said_with_its_node_and_what_rests_there(self, world: World) -> None:
        await world.pool("10.0.0.0/24", ranges={"n1": "10.0.0.1", "n2": "10.0.0.2"})
        await world.place("vm1", node="n2")
        await world.release("vm1", node="n2")
        exhausted, refused = await world.hear(Said.PLACED, "vm2", node="n2")
        assert exhausted == IpExhausted(cluster="msk", pool="web", family=Family.IPV4, node="n2", quarantined=1)
        assert isinstance(refused, IpRefused)
        assert "pool web for node n2 of cluster msk has no free one; 1 rest" in refused.message
        assert await world.place("vm3", node="n1") == ["10.0.0.1"]

    async def test_an_address_chosen_from_the_range_of_another_node_is_refused(self, world: World) -> None:
        await world.pool("10.0.0.0/24", ranges={"n1": "10.0.0.1", "n2": "10.0.0.2"})
        (refused,) = await world.hear(Said.PLACED, "vm1", 1, wish(address="10.0.0.2"), node="n1")
        assert isinstance(refused, IpRefused)
        assert "it is for VMs on node n2" in refused.message
        assert await world.place("vm1", 2, wish(address="10.0.0.2"), node="n2") == ["10.0.0.2"]

    async def test_an_address_of_a_range_is_free_again_for_its_node_after_a_restart(self, world: World) -> None:
        await world.pool("10.0.0.0/24", ranges={"n1": "10.0.0.1", "n2": "10.0.0.2"})
        await world.place("vm1", node="n2")
        await world.release("vm1", node="n2")
        world.restart()
        async with running(world.writer):
            assert await world.place("vm2", node="n2") == [Code.POOL_EXHAUSTED]
            world.clock.pass_by(QUARANTINE)
            await world.writer.end_rests()
            assert await world.place("vm2", 2, node="n2") == ["10.0.0.2"]

    async def test_a_placement_that_was_refused_is_refused_again_and_gets_nothing_that_is_free_by_then(
        self, world: World
    ) -> None:
        await world.pool("10.0.0.0/32")
        await world.place("vm1")
        _, refused = await world.hear(Said.PLACED, "vm2")
        await world.release("vm1")
        world.clock.pass_by(QUARANTINE)
        await world.writer.end_rests()
        assert await world.hear(Said.PLACED, "vm2") == [refused]
        world.restart()
        async with running(world.writer):
            assert await world.hear(Said.PLACED, "vm2") == [refused]
            assert await world.place("vm2", 2) == ["10.0.0.0"]
            assert await world.release("vm2", 2) == ["10.0.0.0"]
            assert await world.hear(Said.PLACED, "vm2", 2) == []

    async def test_what_is_told_of_an_address_names_its_network_gateway_and_vlan(self, world: World) -> None:
        await world.network("192.0.2.0/24", "wired", gateway="192.0.2.0", vlan=7)
        await world.pool("192.0.2.0/24", "2001:db8::/64")
        (allocated,) = await world.hear(Said.PLACED, "vm1")
        assert isinstance(allocated, IpAllocated)
        four, six = allocated.addresses
        assert (str(four.address), str(four.network), str(four.gateway), four.vlan) == (
            *("192.0.2.1", "192.0.2.0/24", "192.0.2.0"),
            7,
        )
        assert (str(six.network), six.gateway, six.vlan) == ("2001:db8::/32", None, None)
        world.restart()
        async with running(world.writer):
            assert await world.hear(Said.PLACED, "vm1") == [allocated]

    async def test_all_addresses_of_a_vm_are_of_one_vlan_if_that_can_be(self, world: World) -> None:
        for vlan in (7, 8):
            await world.network(f"192.0.{vlan}.0/24", f"four{vlan}", segment=True, vlan=vlan)
            await world.network(f"2001:db9:{vlan}::/64", f"six{vlan}", segment=True, vlan=vlan)
        await world.pool("192.0.7.4/31", "2001:db9:7::/64", name="a-red")
        await world.pool("192.0.8.4/31", "2001:db9:8::/64", name="b-blue")
        given = [await world.place(f"vm{number}") for number in range(5)]
        assert given[:4] == [
            *(["192.0.7.4", "2001:db9:7::1"], ["192.0.7.5", "2001:db9:7::2"]),
            *(["192.0.8.4", "2001:db9:8::1"], ["192.0.8.5", "2001:db9:8::2"]),
        ]
        assert given[4] == [Code.POOL_EXHAUSTED]
        assert await world.place("six", 1, wish("ipv6"), wish("ipv6", pool="b-blue")) == [
            *("2001:db9:8::4", "2001:db9:8::3"),
        ]
        both = wish("ipv6", pool="a-red"), wish("ipv6", pool="b-blue")
        assert await world.place("both", 1, *both) == ["2001:db9:7::3", "2001:db9:8::5"], "the scheduler refuses it"

    async def test_nothing_of_a_batch_is_said_when_an_address_turns_out_to_be_taken(self, world: World) -> None:
        await world.pool("10.0.0.0/24")
        assert await world.place("vm1") == ["10.0.0.0"]
        await world.spoil()
        with pytest.raises((asyncpg.UniqueViolationError, TwiceError)):
            await world.place("vm2")
        assert await world.said() == []
        assert await world.place("vm2") == ["10.0.0.2"]

    async def test_a_fence_is_forgotten_only_when_it_is_old_and_a_held_lease_never(self, world: World) -> None:
        await world.pool("10.0.0.0/24")
        await world.place("vm1", 5)
        await world.hear(Said.DELETING, "vm2", 5)
        world.clock.pass_by(1)
        now = world.clock.now()
        await world.writer.alone(
            lambda _: world.store.forget(fences_before=now - timedelta(seconds=1), history_before=now)
        )
        assert await world.hear(Said.PLACED, "vm2", 5) == []
        await world.writer.alone(lambda _: world.store.forget(fences_before=now, history_before=now))
        assert await world.place("vm2", 5) == ["10.0.0.1"]
        assert await world.place("vm1", 5) == ["10.0.0.0"]
        assert [it.what for it in await world.records.history(ip_address("10.0.0.0"), 10)] == ["allocated"]


class TestInMemory(Promises):
    @pytest.fixture
    def world(self, in_memory: World) -> World:
        return in_memory


class TestPostgres(Promises):
    @pytest.fixture
    def world(self, in_postgres: World) -> World:
        return in_postgres

    async def test_an_empty_batch_leaves_no_trace(self, world: World) -> None:
        await world.store.commit(Changes(), [])
        assert await world.outbox() == []
