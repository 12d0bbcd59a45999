"""The writer's promises, kept over both stores."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

import asyncpg
import pytest

from vmfabric.contract.addresses import Family
from vmfabric.contract.admin import (
    Addresses,
    ApplyNetwork,
    ApplyPool,
    Change,
    ExplainAddress,
    Explanation,
    ListOfCluster,
)
from vmfabric.contract.desired import DesiredPools
from vmfabric.contract.envelope import Outgoing, Trace
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.ip import IpAllocated, IpExhausted, IpRefused, IpReleased
from vmfabric.contract.model import Event
from vmfabric.contract.pool import NetworkSpec, PoolSpec
from vmfabric.contract.vm import AddressWish
from vmfabric.database.migrations import migrate
from vmfabric.database.outbox import Relay
from vmfabric.database.pool import connect
from vmfabric.ipam import main
from vmfabric.ipam.admin import Administration
from vmfabric.ipam.applying import Applying
from vmfabric.ipam.domain.lease import Said, VmKey
from vmfabric.ipam.domain.leasing import Changes, Notice
from vmfabric.ipam.memory_store import InMemoryStore, TwiceError
from vmfabric.ipam.ports import Records, Store
from vmfabric.ipam.records import PostgresRecords
from vmfabric.ipam.republish import Republish
from vmfabric.ipam.store import PostgresStore
from vmfabric.ipam.writer import SOURCE, Writer

QUARANTINE = 300


class Clock:
    def __init__(self) -> None:
        self.at = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def pass_by(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class World:
    """A store with the writer that works on it, and what the outbox holds."""

    def __init__(self, store: Store, records: Records) -> None:
        self.store = store
        self.records = records
        self.clock = Clock()

    async def outbox(self) -> Sequence[Outgoing]:
        raise NotImplementedError

    async def spoil(self) -> None:
        """Somebody else writes an address that the writer believes to be free: the next one of 10.0.0.0/24."""
        raise NotImplementedError

    def restart(self) -> None:
        self.writer = Writer(self.store, self.clock)
        self.applying = Applying(self.writer, self.store)
        self.admin = Administration(self.writer, self.applying, self.records)

    async def said(self) -> list[Event]:
        """What was said since somebody last asked, without desired state."""
        kinds = {kind.subject_template.stem: kind for kind in (IpAllocated, IpRefused, IpReleased, IpExhausted)}
        found = [(kinds.get(".".join(each.subject.split(".")[:2])), each.body) for each in await self.outbox()]
        return [kind.model_validate_json(body) for kind, body in found if kind is not None]

    async def hear(
        self, said: Said, vm: str, generation: int = 1, *wishes: AddressWish, node: str = "n1"
    ) -> list[Event]:
        await self.writer.hear(Notice(said, VmKey("msk", vm), node, generation, Trace.new(), wishes or None))
        return await self.said()

    async def place(self, vm: str, generation: int = 1, *wishes: AddressWish) -> list[str]:
        """The addresses that the VM gets, or the code of the refusal."""
        answers = await self.hear(Said.PLACED, vm, generation, *wishes)
        given = [str(each.address) for event in answers if isinstance(event, IpAllocated) for each in event.addresses]
        return given + [event.code for event in answers if isinstance(event, IpRefused)]

    async def release(self, vm: str, generation: int = 1) -> list[str]:
        await self.hear(Said.DELETING, vm, generation)
        (released,) = await self.hear(Said.REMOVED, vm, generation)
        assert isinstance(released, IpReleased)
        return [str(address) for address in released.addresses]

    async def pool(
        self, *blocks: str, name: str = "web", exclude: Sequence[str] = (), cluster: str = "msk"
    ) -> Change:
        spec = PoolSpec(
            name=name,
            cluster=cluster,
            blocks=tuple(ip_network(block) for block in blocks),
            exclude=tuple(ip_network(each) for each in exclude),
            quarantine_seconds=QUARANTINE,
        )
        return (await self.applying.apply_pool(ApplyPool(spec=spec))).change

    async def network(self, prefix: str, name: str = "four") -> Change:
        spec = NetworkSpec(name=name, prefix=ip_network(prefix))
        return (await self.applying.apply_network(ApplyNetwork(spec=spec))).change


class InMemoryWorld(World):
    def __init__(self) -> None:
        self.memory = InMemoryStore()
        super().__init__(self.memory, self.memory)

    async def outbox(self) -> Sequence[Outgoing]:
        taken, self.memory.outbox = self.memory.outbox, []
        return taken

    async def spoil(self) -> None:
        stranger = Writer(self.memory, self.clock)
        async with running(stranger):
            await stranger.hear(Notice(Said.PLACED, VmKey("msk", "stranger"), "n1", 1, Trace.new()))
        await self.outbox()


class NoBus:
    async def send(self, messages: Sequence[Outgoing]) -> None:
        raise AssertionError(f"nothing runs that would publish {messages}")


class PostgresWorld(World):
    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool_of_connections = pool
        super().__init__(PostgresStore(pool, Relay(pool, NoBus())), PostgresRecords(pool))

    async def outbox(self) -> Sequence[Outgoing]:
        rows = await self.pool_of_connections.fetch(
            "WITH taken AS (DELETE FROM outbox RETURNING *) SELECT subject, body, headers FROM taken ORDER BY id"
        )
        return [Outgoing(row["subject"], row["body"], row["headers"]) for row in rows]

    async def spoil(self) -> None:
        stranger = Writer(
            PostgresStore(self.pool_of_connections, Relay(self.pool_of_connections, NoBus())), self.clock
        )
        async with running(stranger):
            await stranger.hear(Notice(Said.PLACED, VmKey("msk", "stranger"), "n1", 1, Trace.new()))
        await self.outbox()


@asynccontextmanager
async def running(writer: Writer) -> AsyncIterator[None]:
    task = asyncio.create_task(writer.run())
    yield
    task.cancel()
    await asyncio.wait({task})


def wish(family: str = "ipv4", pool: str | None = None, address: str | None = None) -> AddressWish:
    return AddressWish(family=Family(family), pool=pool, address=ip_address(address) if address else None)


class Promises:
    """Each is run over both stores."""

    @pytest.fixture(autouse=True)
    async def in_service(self, world: World) -> AsyncIterator[None]:
        world.restart()
        async with running(world.writer):
            await world.network("10.0.0.0/8")
            await world.network("2001:db8::/32", "six")
            yield

    async def test_the_lowest_free_address_of_each_family_comes_first(self, world: World) -> None:
        await world.pool("10.0.0.0/24", "2001:db8::/64", exclude=["10.0.0.0/31"])
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
        await world.pool("10.0.0.0/24", exclude=["10.0.0.0/31"])
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
        assert await world.records.history(ip_address("10.0.0.0"), 10) == []

    async def test_a_pool_that_grows_downwards_gives_its_new_lowest_addresses_first(self, world: World) -> None:
        await world.pool("10.0.1.0/24")
        await world.place("vm1")
        await world.pool("10.0.1.0/24", "10.0.0.0/31")
        given = [await world.place(f"other{number}") for number in range(3)]
        assert given == [["10.0.0.0"], ["10.0.0.1"], ["10.0.1.1"]]

    async def test_a_pool_does_not_shrink_below_what_is_held_or_rests(self, world: World) -> None:
        await world.pool("10.0.0.0/24")
        await world.place("vm1")
        await world.place("vm2")
        await world.release("vm1")
        with pytest.raises(Refused, match=r"10.0.0.0, 10.0.0.1 are in use"):
            await world.pool("10.0.0.128/25")
        world.clock.pass_by(QUARANTINE)
        await world.writer.end_rests()
        with pytest.raises(Refused, match=r"10.0.0.1 is in use"):
            await world.pool("10.0.0.128/25")
        await world.release("vm2")
        world.clock.pass_by(QUARANTINE)
        await world.writer.end_rests()
        assert await world.pool("10.0.0.128/25") is Change.CHANGED
        assert await world.place("vm3") == ["10.0.0.128"]

    async def test_applying_the_same_again_changes_and_says_nothing(self, world: World) -> None:
        assert await world.pool("10.0.0.0/24") is Change.CREATED
        await world.outbox()
        assert await world.pool("10.0.0.0/24") is Change.UNCHANGED
        assert await world.network("10.0.0.0/8") is Change.UNCHANGED
        assert await world.outbox() == []

    async def test_a_dry_run_says_what_would_change_and_changes_nothing(self, world: World) -> None:
        await world.pool("10.0.0.0/24")
        await world.outbox()
        spec = PoolSpec(name="web", cluster="msk", blocks=(ip_network("10.0.0.0/16"),), quarantine_seconds=QUARANTINE)
        applied = await world.applying.apply_pool(ApplyPool(spec=spec, dry_run=True))
        assert (applied.change, applied.fields, applied.dry_run) == (Change.CHANGED, ("blocks",), True)
        assert await world.outbox() == []
        assert await world.pool("10.0.0.0/24") is Change.UNCHANGED

    async def test_the_desired_state_of_both_clusters_follows_a_pool_that_moves(self, world: World) -> None:
        await world.pool("10.0.0.0/24")
        await world.outbox()
        await world.pool("10.0.0.0/24", cluster="spb")
        desired = [DesiredPools.from_bytes(each.body) for each in await world.outbox()]
        assert [(each.cluster, len(each.prefixes)) for each in desired] == [("msk", 0), ("spb", 1)]

    async def test_what_the_bucket_lacks_is_put_again_and_nothing_else(self, world: World) -> None:
        await world.pool("10.0.0.0/24")
        await world.pool("10.0.1.0/24", name="far", cluster="spb")
        first, second = await world.outbox()
        bucket = {"pools.msk": first.body, "pools.spb": second.body}

        async def read_bucket() -> Mapping[str, bytes]:
            return bucket

        republish = Republish(world.writer, world.store, read_bucket)
        await republish.once()
        assert await world.outbox() == []
        del bucket["pools.spb"]
        await republish.once()
        assert await world.outbox() == [second]
        bucket["pools.msk"] = second.body
        await republish.once()
        assert await world.outbox() == [first, second]

    async def test_operators_read_addresses_page_by_page(self, world: World) -> None:
        await world.pool("10.0.0.0/24", "2001:db8::/64")
        for number in range(3):
            await world.place(f"vm{number}")
        await world.hear(Said.DELETING, "vm1")
        await world.release("vm2")
        pages: list[Addresses] = []
        while not pages or pages[-1].next:
            after = pages[-1].next or "" if pages else ""
            pages.append(await world.admin.list_addresses(ListOfCluster(cluster="msk", after=after, limit=4)))
        found = [(str(each.address), each.state) for page in pages for each in page.addresses]
        states = ["allocated", "releasing", "quarantined"]
        assert found == [
            *zip(["10.0.0.0", "10.0.0.1", "10.0.0.2"], states, strict=True),
            *zip(["2001:db8::", "2001:db8::1", "2001:db8::2"], states, strict=True),
        ]
        with pytest.raises(Refused, match="after is 'vm1', which is not an address"):
            await world.admin.list_addresses(ListOfCluster(after="vm1"))

    async def test_explain_tells_the_story_of_an_address(self, world: World) -> None:
        await world.pool("10.0.0.0/24", exclude=["10.0.0.0/32"])
        await world.place("vm1")
        assert (await self.explain(world, "10.0.0.1")).verdict.startswith("10.0.0.1 is held by VM vm1 of cluster msk")
        await world.hear(Said.DELETING, "vm1")
        assert "which is being deleted" in (await self.explain(world, "10.0.0.1")).verdict
        await world.hear(Said.REMOVED, "vm1")
        assert "rests until 2030-01-01T00:05:00" in (await self.explain(world, "10.0.0.1")).verdict
        world.clock.pass_by(QUARANTINE)
        await world.writer.end_rests()
        explained = await self.explain(world, "10.0.0.1")
        assert explained.verdict == "10.0.0.1 is free in pool web of cluster msk."
        assert [entry.what for entry in explained.history] == ["freed", "released", "allocated"]
        assert "which excludes it" in (await self.explain(world, "10.0.0.0")).verdict
        assert "but in no pool" in (await self.explain(world, "10.9.0.0")).verdict
        assert "in no network" in (await self.explain(world, "192.0.2.1")).verdict

    @staticmethod
    async def explain(world: World, address: str) -> Explanation:
        return await world.admin.explain(ExplainAddress(address=ip_address(address)))


class TestInMemory(Promises):
    @pytest.fixture
    async def world(self) -> World:
        return InMemoryWorld()


class TestPostgres(Promises):
    @pytest.fixture
    async def world(self, database_url: str) -> AsyncIterator[World]:
        await migrate(database_url, schema=SOURCE, directory=main.MIGRATIONS)
        pool = await connect(database_url, schema=SOURCE, size=3)
        yield PostgresWorld(pool)
        await pool.close()

    async def test_an_empty_batch_leaves_no_trace(self, world: World) -> None:
        await world.store.commit(Changes(), [])
        assert await world.outbox() == []
