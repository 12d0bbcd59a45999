"""What operators apply and ask, over both stores."""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

import pytest
from ipam_specs import a_network
from ipam_world import QUARANTINE, World, running, wish

from vmfabric.contract.addresses import Family
from vmfabric.contract.addressing import AskUsage, ListFree
from vmfabric.contract.admin import (
    Addresses,
    ApplyNetwork,
    ApplyPool,
    Change,
    DeleteNetwork,
    DeletePool,
    ExplainAddress,
    Explanation,
    List,
    ListOfCluster,
)
from vmfabric.contract.desired import DesiredPools
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.pool import NetworkKind, PoolSpec
from vmfabric.ipam.domain.lease import Said
from vmfabric.ipam.republish import Republish


async def deleted(world: World, *, pool: str = "", network: str = "", dry_run: bool = False) -> Change:
    if pool:
        return (await world.applying.delete_pool(DeletePool(name=pool, dry_run=dry_run))).change
    return (await world.applying.delete_network(DeleteNetwork(name=network, dry_run=dry_run))).change


class Promises:
    """Each is run over both stores."""

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
        with pytest.raises(Refused, match=r"10.0.0.0 \(vm1, resting\), 10.0.0.1 \(vm2\)"):
            await world.pool("10.0.0.128/25")
        world.clock.pass_by(QUARANTINE)
        await world.writer.end_rests()
        with pytest.raises(Refused, match=r": 10.0.0.1 \(vm2\);"):
            await world.pool("10.0.0.128/25")
        await world.release("vm2")
        world.clock.pass_by(QUARANTINE)
        await world.writer.end_rests()
        assert await world.pool("10.0.0.128/25") is Change.CHANGED
        assert await world.place("vm3") == ["10.0.0.128"]

    async def test_networks_ranges_and_gateways_are_there_after_a_restart_as_they_were_applied(
        self, world: World
    ) -> None:
        async def apply_all() -> list[Change]:
            ranges = {"n2": "10.0.0.9", "n1": "10.0.0.2-10.0.0.3,10.0.0.5,2001:db8::7-2001:db8::9"}
            return [
                await world.container("10.0.0.0/7", "all"),
                await world.network("10.0.0.0/8", gateway="10.0.0.1", vlan=7, segment=True),
                await world.pool("10.0.0.0/24", "2001:db8::/64", ranges=ranges),
            ]

        assert await apply_all() == [Change.CREATED, Change.CHANGED, Change.CREATED]
        world.restart()
        async with running(world.writer):
            assert await apply_all() == [Change.UNCHANGED] * 3

    async def test_a_gateway_is_never_given_and_an_address_in_use_becomes_none(self, world: World) -> None:
        await world.pool("10.0.1.0/24")
        await world.place("vm1")
        with pytest.raises(Refused, match=r"network four cannot change so: .* a gateway.*: 10.0.1.0 \(vm1\)"):
            await world.network("10.0.0.0/8", gateway="10.0.1.0")
        await world.network("10.0.0.0/8", gateway="10.0.1.1")
        assert await world.place("vm2") == ["10.0.1.2"]
        assert await world.place("vm3", 1, wish(address="10.0.1.1")) == [Code.ADDRESS_EXCLUDED]
        assert "it is the gateway" in (await self.explain(world, "10.0.1.1")).verdict
        await world.network("10.0.0.0/8", gateway="10.0.1.3")
        assert await world.place("vm4") == ["10.0.1.1"]

    async def test_in_a_segment_neither_its_own_nor_its_broadcast_address_is_given(self, world: World) -> None:
        await world.network("10.0.0.0/29", segment=True)
        await world.pool("10.0.0.0/29", exclude=("10.0.0.1/32",))
        placed = [await world.place(f"vm{number}") for number in range(6)]
        assert placed == [*([f"10.0.0.{last}"] for last in range(2, 7)), [Code.POOL_EXHAUSTED]]
        assert await world.place("vm", 1, wish(address="10.0.0.7")) == [Code.ADDRESS_EXCLUDED]

    async def test_a_network_that_has_a_gateway_is_a_segment(self, world: World) -> None:
        await world.network("10.0.0.0/29", gateway="10.0.0.1")
        await world.network("2001:db8::/64", "six", gateway="2001:db8::1")
        await world.pool("10.0.0.0/29", "2001:db8::/64", ranges={"n1": "10.0.0.0-10.0.0.7,2001:db8::-2001:db8::2"})
        placed = [await world.place("vm1"), await world.place("vm2")]
        assert placed == [["10.0.0.2", "2001:db8::2"], [Code.POOL_EXHAUSTED]]
        given = [await world.place(f"four{number}", 1, wish()) for number in range(5)]
        assert given == [*([f"10.0.0.{last}"] for last in range(3, 7)), [Code.POOL_EXHAUSTED]]

    async def test_a_vm_that_has_the_end_of_a_segment_from_before_is_the_last_that_has(self, world: World) -> None:
        await world.network("10.0.0.0/29")
        await world.pool("10.0.0.0/29")
        assert await world.place("vm1") == ["10.0.0.0"]
        await world.store.put_network(a_network("10.0.0.0/29", "four", gateway="10.0.0.1"), [])
        world.restart()
        async with running(world.writer):
            assert await world.place("vm2") == ["10.0.0.2"]
            assert await world.release("vm1") == ["10.0.0.0"]
            world.clock.pass_by(QUARANTINE)
            await world.writer.end_rests()
            assert await world.place("vm1", 2, wish(address="10.0.0.0")) == [Code.ADDRESS_TAKEN]
            assert await world.place("vm3") == ["10.0.0.3"]

    async def test_an_address_in_use_becomes_no_end_of_a_segment(self, world: World) -> None:
        await world.network("10.0.0.0/29", name="four")
        await world.pool("10.0.0.0/29")
        assert await world.place("vm1") == ["10.0.0.0"]
        with pytest.raises(Refused, match=r"the end of a segment.*: 10.0.0.0 \(vm1\)"):
            await world.network("10.0.0.0/29", name="four", segment=True)

    async def test_operators_and_placement_see_which_nodes_have_a_free_address_of_each_family(
        self, world: World
    ) -> None:
        ranges = {"n1": "10.0.0.1-10.0.0.4,2001:db8::1-2001:db8::2", "n2": "10.0.0.9"}
        await world.pool("10.0.0.0/24", "2001:db8::/64", name="a", exclude=("10.0.0.4/32",), ranges=ranges)
        await world.pool("10.0.1.0/24", name="b")
        await world.place("vm1", 1, wish(pool="a"), node="n2")
        await world.place("vm2", 1, wish(pool="a"), node="n1")
        a, b = (await world.reporting.list_free(ListFree(cluster="msk"))).pools
        assert a.free == {Family.IPV4: 2, Family.IPV6: 2}
        assert a.nodes == {"n1": {Family.IPV4: 2, Family.IPV6: 2}, "n2": {Family.IPV4: 0}}
        assert (b.free, b.nodes) == ({Family.IPV4: 256}, None)
        assert not (await world.reporting.list_free(ListFree(cluster="spb"))).pools

    async def test_a_vm_without_wishes_gets_one_address_of_each_family_that_its_node_has(self, world: World) -> None:
        ranges = {"n1": "10.0.0.1-10.0.0.4,2001:db8::1-2001:db8::2", "n2": "10.0.0.9"}
        await world.pool("10.0.0.0/24", "2001:db8::/64", ranges=ranges)
        assert await world.place("vm1", node="n1") == ["10.0.0.1", "2001:db8::1"]
        assert await world.place("vm2", node="n2") == ["10.0.0.9"]
        assert await world.place("vm3", node="n3") == [Code.POOL_EXHAUSTED]

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

    async def test_a_pool_and_its_network_are_deleted_once_the_pool_first(self, world: World) -> None:
        await world.pool("10.0.0.0/24", exclude=("10.0.0.0/32",), ranges={"n1": "10.0.0.1-10.0.0.4"})
        await world.pool("10.0.1.0/24", name="other")
        await world.outbox()
        with pytest.raises(Refused) as refused:
            await world.applying.delete_network(DeleteNetwork(name="four"))
        assert refused.value.code is Code.IN_USE
        assert "blocks are cut from it: 10.0.0.0/24 of pool web, 10.0.1.0/24 of pool other" in refused.value.sentence
        assert await deleted(world, pool="web", dry_run=True) is Change.DELETED
        assert await world.outbox() == []
        assert await deleted(world, pool="web") is Change.DELETED
        (left,) = await world.outbox()
        assert DesiredPools.model_validate_json(left.body).prefixes == (ip_network("10.0.1.0/24"),)
        assert await deleted(world, pool="web") is Change.UNCHANGED
        assert await deleted(world, pool="other") is Change.DELETED
        assert await deleted(world, network="four", dry_run=True) is Change.DELETED
        assert await deleted(world, network="four") is Change.DELETED
        assert await deleted(world, network="four") is Change.UNCHANGED
        assert await world.place("vm1") == [Code.UNKNOWN_POOL]
        world.restart()
        async with running(world.writer):
            assert (await world.reporting.list_pools(ListOfCluster())).pools == ()
            assert "four" not in [it.name for it in (await world.admin.list_networks(List())).networks]
            assert await world.network("10.0.0.0/8") is Change.CREATED
            assert await world.pool("10.0.0.0/24") is Change.CREATED
            assert await world.place("vm1", 2) == ["10.0.0.0"]

    async def test_a_pool_is_not_deleted_while_an_address_of_it_is_held_rests_or_is_reserved(
        self, world: World
    ) -> None:
        await world.pool("10.0.0.0/24")
        await world.place("vm1")
        await world.place("vm2")
        await world.release("vm1")
        await world.reserve("10.0.0.9", owner="bob")
        with pytest.raises(Refused) as refused:
            await deleted(world, pool="web")
        assert refused.value.code is Code.IN_USE
        assert "10.0.0.0 (vm1, resting), 10.0.0.1 (vm2), 10.0.0.9 (reserved for bob)" in refused.value.sentence
        await world.release("vm2")
        await world.end_reservation("10.0.0.9")
        world.clock.pass_by(QUARANTINE + 1)
        await world.writer.end_rests()
        assert await deleted(world, pool="web") is Change.DELETED

    async def test_a_container_is_deleted_from_around_its_networks(self, world: World) -> None:
        await world.pool("10.0.0.0/24")
        container = a_network("10.0.0.0/7", "all").model_copy(update={"kind": NetworkKind.CONTAINER})
        await world.applying.apply_network(ApplyNetwork(spec=container))
        assert await deleted(world, network="all") is Change.DELETED
        assert await world.place("vm1") == ["10.0.0.0"]

    async def test_a_network_of_multicast_addresses_is_refused_and_not_kept(self, world: World) -> None:
        with pytest.raises(Refused, match=r"which lies in 224.0.0.0/4 \(multicast\); no VM can be reached there"):
            await world.applying.apply_network(ApplyNetwork(spec=a_network("224.0.0.0/24", "cast")))
        assert "cast" not in [it.name for it in (await world.admin.list_networks(List())).networks]

    async def test_what_is_asked_of_a_cluster_without_pools_is_refused_with_those_that_have_some(
        self, world: World
    ) -> None:
        wrong = ListOfCluster(cluster="mks")
        with pytest.raises(Refused, match="no pool is of cluster mks; there is no pool yet"):
            await world.reporting.list_pools(wrong)
        await world.pool("10.0.0.0/24")
        for asked in (
            world.reporting.list_pools(wrong),
            world.reporting.report_usage(AskUsage(cluster="mks")),
            world.admin.list_addresses(wrong),
        ):
            with pytest.raises(Refused) as refused:
                await asked
            assert refused.value.code is Code.UNKNOWN_CLUSTER
            assert refused.value.sentence == "no pool is of cluster mks; the clusters that have pools are: msk"

    async def test_explain_tells_the_story_of_an_address(self, world: World) -> None:
        await world.pool("10.0.0.0/24", exclude=("10.0.0.0/32",))
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
        assert "but pool web excludes it" in (await self.explain(world, "10.0.0.0")).verdict
        assert "lies in active network four, but in no pool" in (await self.explain(world, "10.9.0.0")).verdict
        assert "in no network" in (await self.explain(world, "192.0.2.1")).verdict

    @staticmethod
    async def explain(world: World, address: str) -> Explanation:
        return await world.admin.explain(ExplainAddress(address=ip_address(address)))


class TestInMemory(Promises):
    @pytest.fixture
    def world(self, in_memory: World) -> World:
        return in_memory


class TestPostgres(Promises):
    @pytest.fixture
    def world(self, in_postgres: World) -> World:
        return in_postgres
