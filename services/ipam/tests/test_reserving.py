"""What operators keep for somebody, over both stores."""

import pytest
from ipam_world import QUARANTINE, World, running, wish
from pydantic import ValidationError

from vmfabric.contract.addresses import Family, parse_host
from vmfabric.contract.addressing import ReserveAddresses
from vmfabric.contract.admin import ExplainAddress, Explanation, ListOfCluster, Usage
from vmfabric.contract.errors import Code, Refused
from vmfabric.ipam.domain.lease import Said


async def explain(world: World, address: str) -> Explanation:
    return await world.admin.explain(ExplainAddress(address=parse_host(address)))


async def usage(world: World) -> Usage:
    (pool,) = (await world.reporting.list_pools(ListOfCluster())).pools
    (found,) = pool.usage.values()
    return found


async def usages(world: World) -> list[tuple[int, int, int]]:
    """Allocated, free and quarantined, of each family."""
    (pool,) = (await world.reporting.list_pools(ListOfCluster())).pools
    return [(it.allocated, it.free, it.quarantined) for it in pool.usage.values()]


class Promises:
    """Each is run over both stores."""

    async def test_a_reserved_address_is_given_to_no_vm(self, world: World) -> None:
        await world.pool("10.0.0.0/30")
        assert await world.reserve("10.0.0.0", "10.0.0.2") == ["10.0.0.0", "10.0.0.2"]
        assert await world.place("vm1", 1, wish(address="10.0.0.0")) == [Code.ADDRESS_TAKEN]
        given = [await world.place(f"other{number}") for number in range(3)]
        assert given == [["10.0.0.1"], ["10.0.0.3"], [Code.POOL_EXHAUSTED]]

    async def test_the_vm_that_it_is_reserved_for_gets_it_by_asking_for_exactly_it_and_nobody_else_does(
        self, world: World
    ) -> None:
        await world.pool("10.0.0.0/30")
        await world.reserve("10.0.0.0", for_vm="vm1")
        assert await world.place("vm2", 1, wish(address="10.0.0.0")) == [Code.ADDRESS_TAKEN]
        assert await world.place("vm1") == ["10.0.0.1"]
        await world.release("vm1")
        assert await world.place("vm1", 2, wish(address="10.0.0.0")) == ["10.0.0.0"]

    async def test_a_vm_that_is_made_again_has_its_reserved_address_at_once_and_nobody_else_has(
        self, world: World
    ) -> None:
        await world.pool("10.0.0.0/31", "2001:db8::/64")
        await world.reserve("10.0.0.0", "2001:db8::", for_vm="vm1")
        four, six = wish(address="10.0.0.0"), wish("ipv6", address="2001:db8::")
        assert await world.place("vm1", 1, four, six) == ["10.0.0.0", "2001:db8::"]
        await world.release("vm1")
        assert await world.place("vm2", 1, four) == [Code.ADDRESS_QUARANTINED]
        assert await world.place("vm1", 2, four, wish(address="10.0.0.1"), wish()) == [Code.POOL_EXHAUSTED]
        assert (await usages(world)) == [(0, 1, 1), (0, 2**64 - 1, 1)], "what rested goes on resting"
        world.restart()
        async with running(world.writer):
            assert await world.place("vm1", 3, six, four) == ["2001:db8::", "10.0.0.0"]
            world.clock.pass_by(QUARANTINE)
            await world.writer.end_rests()
            assert await world.hear(Said.PLACED, "vm1", 3, six, four)
            assert (await usages(world)) == [(1, 1, 0), (1, 2**64 - 1, 0)]
            assert await world.release("vm1", 3) == ["2001:db8::", "10.0.0.0"]
            assert (await usages(world)) == [(0, 1, 1), (0, 2**64 - 1, 1)]

    async def test_what_rests_of_another_vm_rests_for_the_vm_that_it_is_reserved_for_too(self, world: World) -> None:
        await world.pool("10.0.0.0/31")
        await world.place("vm1")
        await world.release("vm1")
        await world.reserve("10.0.0.0", for_vm="vm2")
        assert await world.place("vm2", 1, wish(address="10.0.0.0")) == [Code.ADDRESS_QUARANTINED]
        assert await world.place("vm1", 2, wish(address="10.0.0.0")) == [Code.ADDRESS_QUARANTINED]

    async def test_a_reservation_outlives_its_vm_and_the_quarantine_between_two_lives(self, world: World) -> None:
        await world.pool("10.0.0.0/32")
        await world.reserve("10.0.0.0", for_vm="vm1")
        await world.place("vm1", 1, wish(address="10.0.0.0"))
        await world.release("vm1")
        world.clock.pass_by(QUARANTINE)
        await world.writer.end_rests()
        assert await world.place("vm2") == [Code.POOL_EXHAUSTED]
        assert await world.place("vm1", 3, wish(address="10.0.0.0")) == ["10.0.0.0"]

    async def test_a_vm_that_cannot_have_all_that_it_wants_leaves_its_reserved_address_reserved(
        self, world: World
    ) -> None:
        await world.pool("10.0.0.0/32")
        await world.reserve("10.0.0.0", for_vm="vm1")
        assert await world.place("vm1", 1, wish(address="10.0.0.0"), wish()) == [Code.POOL_EXHAUSTED]
        assert await usage(world) == Usage(total=1, allocated=0, quarantined=0, reserved=1, free=0)
        assert await world.place("vm1", 2, wish(address="10.0.0.0")) == ["10.0.0.0"]
        assert await usage(world) == Usage(total=1, allocated=1, quarantined=0, reserved=0, free=0)

    async def test_a_hold_ends_by_itself_and_its_address_is_given_again(self, world: World) -> None:
        await world.pool("10.0.0.0/32")
        await world.reserve("10.0.0.0", expires_in_seconds=60)
        world.clock.pass_by(59)
        await world.writer.end_holds()
        assert await world.place("vm1") == [Code.POOL_EXHAUSTED]
        world.clock.pass_by(1)
        await world.writer.end_holds()
        assert await world.place("vm1", 2) == ["10.0.0.0"]

    async def test_a_hold_that_is_renewed_ends_when_it_was_said_last(self, world: World) -> None:
        await world.pool("10.0.0.0/32")
        await world.reserve("10.0.0.0", expires_in_seconds=60)
        world.clock.pass_by(59)
        await world.reserve("10.0.0.0", expires_in_seconds=60)
        world.clock.pass_by(59)
        await world.writer.end_holds()
        assert await world.place("vm1") == [Code.POOL_EXHAUSTED]

    async def test_the_hold_of_a_vm_ends_and_the_vm_keeps_the_address_that_it_took(self, world: World) -> None:
        await world.pool("10.0.0.0/32")
        await world.reserve("10.0.0.0", for_vm="vm1", expires_in_seconds=60)
        await world.place("vm1", 1, wish(address="10.0.0.0"))
        world.clock.pass_by(60)
        await world.writer.end_holds()
        assert (await explain(world, "10.0.0.0")).verdict.endswith("on node n1, generation 1.")
        assert await world.place("vm2") == [Code.POOL_EXHAUSTED]

    async def test_so_many_of_a_pool_are_its_lowest_free_ones_or_none(self, world: World) -> None:
        await world.pool("10.0.0.0/29", "2001:db8::/64", exclude=("10.0.0.0/32",))
        await world.place("vm1", 1, wish(), wish(address="10.0.0.4"))
        await world.place("vm2", 1, wish())
        assert await world.reserve(pool="web", count=3) == ["10.0.0.3", "10.0.0.5", "10.0.0.6"]
        with pytest.raises(Refused, match="2 ipv4 addresses of pool web are wanted, but 1 are free") as refused:
            await world.reserve(pool="web", count=2)
        assert refused.value.code is Code.POOL_EXHAUSTED
        assert await world.place("vm3", 1, wish()) == ["10.0.0.7"]

    async def test_of_a_pool_with_ranges_those_of_one_node_can_be_reserved(self, world: World) -> None:
        await world.pool("10.0.0.0/29", ranges={"n1": "10.0.0.4-10.0.0.5", "n2": "10.0.0.1-10.0.0.2"})
        assert await world.reserve(pool="web", node="n2") == ["10.0.0.1"]
        assert await world.place("vm1", node="n2") == ["10.0.0.2"]
        with pytest.raises(Refused, match="for node n2 are wanted, but 0 are free"):
            await world.reserve(pool="web", node="n2")

    async def test_the_lowest_of_a_pool_are_so_in_whatever_order_its_ranges_are_listed(self, world: World) -> None:
        ranges = {"n1": "10.0.0.12-10.0.0.13,10.0.0.0-10.0.0.1", "n2": "10.0.0.4-10.0.0.7,10.0.0.2-10.0.0.3"}
        await world.pool("10.0.0.0/28", ranges=ranges)
        assert await world.reserve(pool="web", count=9, dry_run=True) == [
            *(f"10.0.0.{last}" for last in (*range(8), 12)),
        ]
        assert await world.reserve(pool="web", count=3, node="n1") == ["10.0.0.0", "10.0.0.1", "10.0.0.12"]

    async def test_a_node_or_family_that_the_pool_has_nothing_for_is_named_and_not_called_full(
        self, world: World
    ) -> None:
        await world.pool("10.0.0.0/28", name="all")
        await world.pool("10.0.1.0/28", ranges={"n2": "10.0.1.1", "n1": "10.0.1.2"})
        with pytest.raises(Refused, match="pool all has no ranges, .* leave `node` out"):
            await world.reserve(pool="all", node="n1")
        with pytest.raises(Refused, match="pool web has no range for node n3, but for n1, n2"):
            await world.reserve(pool="web", node="n3")
        with pytest.raises(Refused, match="pool all of cluster msk has no ipv6 block"):
            await world.reserve(pool="all", family=Family.IPV6)

    async def test_what_cannot_be_reserved_is_refused_with_all_reasons_and_nothing_is_kept(
        self, world: World
    ) -> None:
        await world.network("10.0.0.0/8", gateway="10.0.0.9")
        await world.pool("10.0.0.0/24", exclude=("10.0.0.8/32",))
        await world.place("vm1")
        await world.reserve("10.0.0.7", owner="alice")
        addresses = [f"10.0.0.{host}" for host in (1, 7, 8, 9, 10)]
        with pytest.raises(Refused) as refused:
            await world.reserve(*addresses)
        assert refused.value.sentence == (
            "10.0.0.1 is held by VM vm1; reserve it for that VM (for_vm), or delete it first, "
            "10.0.0.7 is reserved for alice; ip.release ends that, "
            "10.0.0.8 cannot be given: pool web excludes it, "
            "10.0.0.9 cannot be given: it is the gateway of its network"
        )
        assert await world.place("vm2", 1, wish(address="10.0.0.10")) == ["10.0.0.10"]
        with pytest.raises(Refused, match="10.1.0.0 lies in no pool"):
            await world.reserve("10.1.0.0")

    async def test_an_address_can_be_reserved_for_the_vm_that_has_it_and_while_it_rests(self, world: World) -> None:
        await world.pool("10.0.0.0/31")
        await world.place("vm1")
        await world.place("vm2")
        await world.reserve("10.0.0.0", for_vm="vm1")
        await world.release("vm1")
        await world.release("vm2")
        await world.reserve("10.0.0.1", for_vm="vm2")
        world.clock.pass_by(QUARANTINE)
        await world.writer.end_rests()
        assert await world.place("vm3") == [Code.POOL_EXHAUSTED]
        assert await world.place("vm1", 2, wish(address="10.0.0.0")) == ["10.0.0.0"]

    async def test_release_ends_a_reservation_and_never_takes_an_address_from_a_vm(self, world: World) -> None:
        await world.pool("10.0.0.0/31")
        await world.reserve("10.0.0.0", "10.0.0.1", for_vm="vm1")
        await world.place("vm1", 1, wish(address="10.0.0.0"))
        with pytest.raises(Refused, match=r"VMs hold 10.0.0.0 \(vm1\); .*when they are deleted") as refused:
            await world.end_reservation("10.0.0.1", "10.0.0.0")
        assert refused.value.code is Code.IN_USE
        assert await world.place("vm2") == [Code.POOL_EXHAUSTED], "nothing was released"
        await world.end_reservation("10.0.0.1")
        assert await world.place("vm2", 2) == ["10.0.0.1"]
        with pytest.raises(Refused, match="10.0.0.9 are not reserved"):
            await world.end_reservation("10.0.0.9")

    async def test_an_address_that_rests_goes_on_resting_when_its_reservation_is_released(self, world: World) -> None:
        await world.pool("10.0.0.0/32")
        await world.reserve("10.0.0.0", for_vm="vm1")
        await world.place("vm1", 1, wish(address="10.0.0.0"))
        await world.release("vm1")
        await world.end_reservation("10.0.0.0")
        assert await world.place("vm2") == [Code.POOL_EXHAUSTED]
        world.clock.pass_by(QUARANTINE)
        await world.writer.end_rests()
        assert await world.place("vm2", 2) == ["10.0.0.0"]

    async def test_a_dry_run_keeps_and_releases_nothing(self, world: World) -> None:
        await world.pool("10.0.0.0/31")
        assert await world.reserve("10.0.0.0", dry_run=True) == ["10.0.0.0"]
        assert await world.reserve(pool="web", count=2, dry_run=True) == ["10.0.0.0", "10.0.0.1"]
        assert await world.place("vm1") == ["10.0.0.0"]
        await world.reserve("10.0.0.1")
        await world.end_reservation("10.0.0.1", dry_run=True)
        assert await world.place("vm2") == [Code.POOL_EXHAUSTED]

    async def test_reservations_and_their_ends_are_as_they_were_after_a_restart(self, world: World) -> None:
        await world.pool("10.0.0.0/30")
        await world.reserve("10.0.0.0", for_vm="vm1")
        await world.reserve("10.0.0.1", for_vm="vm2", expires_in_seconds=60)
        await world.reserve("10.0.0.2", for_vm="vm3")
        await world.place("vm1", 1, wish(address="10.0.0.0"))
        before = await usage(world)
        world.restart()
        async with running(world.writer):
            assert await usage(world) == before
            assert await world.place("vm3", 1, wish(address="10.0.0.2")) == ["10.0.0.2"]
            assert await world.place("vm4", 1, wish(address="10.0.0.1")) == [Code.ADDRESS_TAKEN]
            world.clock.pass_by(60)
            await world.writer.end_holds()
            await world.release("vm1")
            world.clock.pass_by(QUARANTINE)
            await world.writer.end_rests()
            given = [await world.place(f"other{number}") for number in range(3)]
            assert given == [["10.0.0.1"], ["10.0.0.3"], [Code.POOL_EXHAUSTED]]

    async def test_a_change_of_a_pool_strands_no_reservation(self, world: World) -> None:
        await world.pool("10.0.0.0/24")
        await world.reserve("10.0.0.200", "10.0.0.201")
        with pytest.raises(
            Refused, match=r": 10.0.0.200 \(reserved for bob\), 10.0.0.201 \(reserved for bob\); ip.explain"
        ):
            await world.pool("10.0.0.0/25")
        with pytest.raises(Refused, match=r"a gateway.*10.0.0.200 \(reserved for bob\)"):
            await world.network("10.0.0.0/8", gateway="10.0.0.200")
        await world.pool("10.0.0.0/23")
        assert await world.place("vm1", 1, wish(address="10.0.0.200")) == [Code.ADDRESS_TAKEN]

    async def test_operators_see_what_is_reserved_for_whom_page_by_page_beside_what_is_held(
        self, world: World
    ) -> None:
        await world.pool("10.0.0.0/24", "2001:db8::/64")
        await world.reserve("10.0.0.1", "2001:db8::", note="rack 7")
        await world.place("vm1", 1, wish())
        await world.reserve("10.0.0.0", for_vm="vm1", owner="alice")
        found: list[tuple[str, str, str | None]] = []
        after: str | None = ""
        while after is not None:
            page = await world.admin.list_addresses(ListOfCluster(cluster="msk", after=after, limit=2))
            found += [
                (str(it.address), it.state, it.reservation.owner if it.reservation else None) for it in page.addresses
            ]
            after = page.next
        assert found == [
            ("10.0.0.0", "allocated", "alice"),
            ("10.0.0.1", "reserved", "bob"),
            ("2001:db8::", "reserved", "bob"),
        ]
        assert (await explain(world, "10.0.0.1")).verdict == (
            "No VM has 10.0.0.1. It is reserved for bob (rack 7): no VM may have it."
        )
        assert (await explain(world, "10.0.0.0")).verdict.endswith(
            "It is reserved for alice: VM vm1 may have it by asking for exactly this address."
        )

    async def test_history_tells_for_whom_an_address_was_reserved(self, world: World) -> None:
        await world.pool("10.0.0.0/24")
        await world.reserve("10.0.0.1", for_vm="vm1", note="ticket 12", expires_in_seconds=60)
        await world.reserve("10.0.0.1", for_vm="vm1", note="ticket 12", expires_in_seconds=60)
        await world.place("vm1", 1, wish(address="10.0.0.1"))
        world.clock.pass_by(60)
        await world.writer.end_holds()
        history = (await explain(world, "10.0.0.1")).history
        assert [it.what for it in history] == ["expired", "allocated", "reserved"]
        assert (history[2].owner, history[2].vm, history[2].note) == ("bob", "vm1", "ticket 12")

    async def test_a_vm_that_is_moved_keeps_its_reserved_address(self, world: World) -> None:
        await world.pool("10.0.0.0/24")
        await world.reserve("10.0.0.1", for_vm="vm1")
        await world.place("vm1", 1, wish(address="10.0.0.1"))
        await world.hear(Said.PLACED, "vm1", 2, node="n2")
        assert (await explain(world, "10.0.0.1")).verdict.startswith("10.0.0.1 is held by VM vm1")


class TestInMemory(Promises):
    @pytest.fixture
    def world(self, in_memory: World) -> World:
        return in_memory


class TestPostgres(Promises):
    @pytest.fixture
    def world(self, in_postgres: World) -> World:
        return in_postgres


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ('{"owner":"bob"}', "give either `addresses`, or a `pool`"),
        ('{"owner":"bob","addresses":["10.0.0.1"],"pool":"web"}', "give either `addresses`, or a `pool`"),
        ('{"owner":"bob","addresses":["10.0.0.1"],"count":2}', "count belong to a `pool`"),
        ('{"owner":"bob","addresses":["10.0.0.1","10.0.0.1"]}', "stands there twice"),
        ('{"owner":"bob\\n","pool":"web"}', "string_pattern_mismatch"),
        ('{"owner":"","pool":"web"}', "string_too_short"),
        ('{"owner":"bob","pool":"web","note":"\\u0000"}', "string_pattern_mismatch"),
    ],
)
def test_a_request_says_clearly_what_is_to_be_kept(body: str, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ReserveAddresses.model_validate_json(body)
