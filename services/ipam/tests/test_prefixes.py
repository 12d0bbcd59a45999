"""Pools that give each VM a whole IPv6 prefix, over both stores."""

import json
from datetime import datetime
from ipaddress import ip_network

import pytest
from ipam_specs import a_pool
from ipam_world import QUARANTINE, World, running, wish
from pydantic import ValidationError

from vmfabric.contract.addresses import Family, parse_host
from vmfabric.contract.addressing import AddressHistory, AskHistory, AskUsage, ImportAddresses, Imported, ImportRow
from vmfabric.contract.admin import ApplyPool, ExplainAddress, ListOfCluster
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.ip import IpAllocated
from vmfabric.contract.pool import PoolSpec
from vmfabric.ipam.domain.lease import Said

BLOCK = "2001:db8:1::/48"


async def history(
    world: World, address: str, at: datetime | None = None, until: datetime | None = None
) -> AddressHistory:
    return await world.reporting.tell_history(AskHistory(address=parse_host(address), at=at, until=until))


async def bring_in(world: World, *rows: tuple[str, str], owner: str | None = None) -> Imported:
    asked = tuple(ImportRow(address=parse_host(address), vm=vm, owner=owner) for address, vm in rows)
    return await world.importing.import_rows(ImportAddresses(pool="web", rows=asked))


class Promises:
    """Each is run over both stores."""

    async def test_each_vm_gets_a_prefix_of_its_own_and_the_address_that_leads_to_it(self, world: World) -> None:
        await world.pool(BLOCK, "10.0.0.0/30", ipv6_length=64)
        (allocated,) = await world.hear(Said.PLACED, "vm1")
        assert isinstance(allocated, IpAllocated)
        assert [(str(each.address), str(each.prefix)) for each in allocated.addresses] == [
            ("10.0.0.0", "None"),
            ("2001:db8:1::1", "2001:db8:1::/64"),
        ]
        assert await world.place("vm2") == ["10.0.0.1", "2001:db8:1:1::1"]

    async def test_a_prefix_rests_as_a_whole_and_is_given_again(self, world: World) -> None:
        await world.pool("2001:db8:1::/63", ipv6_length=64)
        for number in (1, 2):
            await world.place(f"vm{number}")
        assert await world.place("vm3") == [Code.POOL_EXHAUSTED]
        await world.release("vm1")
        assert await world.place("vm4") == [Code.POOL_EXHAUSTED]
        world.restart()
        async with running(world.writer):
            assert await world.place("vm5") == [Code.POOL_EXHAUSTED], "what rests is known after a restart"
            world.clock.pass_by(QUARANTINE)
            await world.writer.end_rests()
            assert await world.place("vm6") == ["2001:db8:1::1"]

    async def test_any_address_of_a_prefix_stands_for_all_of_it(self, world: World) -> None:
        await world.pool(BLOCK, ipv6_length=64)
        assert await world.place("vm1", 1, wish("ipv6", address="2001:db8:1:7:abcd::5")) == ["2001:db8:1:7::1"]
        assert await world.place("vm2", 1, wish("ipv6", address="2001:db8:1:7::")) == [Code.ADDRESS_TAKEN]
        assert await world.reserve("2001:db8:1:8::77", for_vm="vm3") == ["2001:db8:1:8::1"]
        assert await world.place("vm3", 1, wish("ipv6", address="2001:db8:1:8::")) == ["2001:db8:1:8::1"]
        explained = await world.admin.explain(ExplainAddress(address=parse_host("2001:db8:1:7::1234")))
        assert explained.verdict.startswith("2001:db8:1:7::1 with 2001:db8:1:7::/64 is held by VM vm1")
        told = await history(world, "2001:db8:1:7::1234")
        assert told.holder is not None
        assert told.holder.vm == "vm1"
        listed = (await world.admin.list_addresses(ListOfCluster())).addresses
        assert [(each.vm, str(each.prefix)) for each in listed] == [
            ("vm1", "2001:db8:1:7::/64"),
            ("vm3", "2001:db8:1:8::/64"),
        ]

    async def test_two_wishes_for_one_prefix_are_one_too_many(self, world: World) -> None:
        await world.pool(BLOCK, ipv6_length=64)
        both = wish("ipv6", address="2001:db8:1::5"), wish("ipv6", address="2001:db8:1::6")
        assert await world.place("vm1", 1, *both) == [Code.INVALID_REQUEST]
        assert await world.place("vm2") == ["2001:db8:1::1"], "and nothing is held"

    async def test_several_addresses_of_one_prefix_are_imported_as_that_if_they_are_one_vms(
        self, world: World
    ) -> None:
        await world.pool(BLOCK, ipv6_length=64)
        imported = await bring_in(world, ("2001:db8:1:7::1", "vm7"), ("2001:db8:1:7::2", "vm7"))
        assert (imported.imported, imported.unchanged, imported.problems) == (1, 0, ())
        both = await bring_in(world, ("2001:db8:1:8::1", "vm8"), ("2001:db8:1:8::2", "vm9"))
        assert [(str(it.address), it.sentence.partition(", ")[0]) for it in both.problems] == [
            ("2001:db8:1:8::2", "2001:db8:1:8::2 and 2001:db8:1:8::1 are of one prefix")
        ]
        for address in ("2001:db8:1:7::1", "2001:db8:1:7::3"):
            later = await bring_in(world, (address, "vm9"), owner="vm7")
            assert "which is kept for VM vm7 already" in later.problems[0].sentence
        assert await world.place("vm7", 1, wish("ipv6", address="2001:db8:1:7::2")) == ["2001:db8:1:7::1"]

    async def test_usage_counts_prefixes(self, world: World) -> None:
        await world.pool("2001:db8:1::/56", ipv6_length=64, exclude=("2001:db8:1:5::1/128",))
        await world.place("vm1")
        (pool,) = (await world.reporting.report_usage(AskUsage())).pools
        found = pool.families[Family.IPV6]
        assert (found.used, found.free, found.excluded) == (1, 254, 1)
        assert found.largest_free_block == ip_network("2001:db8:1:80::/57")

    async def test_a_prefix_of_which_something_is_excluded_is_refused_with_that_reason(self, world: World) -> None:
        await world.pool(BLOCK, ipv6_length=64, exclude=("2001:db8:1:5::77/128",))
        (refused,) = await world.hear(Said.PLACED, "vm1", 1, wish("ipv6", address="2001:db8:1:5::"))
        assert "pool web excludes some of its 2001:db8:1:5::/64" in str(refused)

    async def test_the_length_stays_while_addresses_are_in_use(self, world: World) -> None:
        await world.pool(BLOCK, "10.0.0.0/30", ipv6_length=64)
        await world.place("vm1", 1, wish("ipv4"))
        await world.pool(BLOCK, "10.0.0.0/30", ipv6_length=60)
        await world.place("vm2", 1, wish("ipv6"))
        with pytest.raises(
            Refused, match=r"a /64 instead of a /60 while .* in use: 2001:db8:1::1 \(vm2\)"
        ) as refused:
            await world.pool(BLOCK, "10.0.0.0/30", ipv6_length=64)
        assert refused.value.code is Code.IN_USE

    async def test_who_had_an_address_is_told_by_what_the_pool_gave_then(self, world: World) -> None:
        """Whatever it gives now."""
        began, inside = world.clock.now(), "2001:db8:1:7::abcd"
        await world.pool(BLOCK, ipv6_length=64)
        await world.place("vm1", 1, wish("ipv6", address="2001:db8:1:7::"))
        await self._gone(world, "vm1")
        await world.pool("2001:db8:2::/48")
        told = await history(world, inside, began)
        assert "VM vm1 of cluster msk had 2001:db8:1:7::abcd, with all of 2001:db8:1:7::/64, from" in told.sentence
        await world.pool(BLOCK)
        between = world.clock.now()
        await world.place("vm2", 1, wish("ipv6", address=inside))
        await self._gone(world, "vm2")
        await world.pool(BLOCK, ipv6_length=60)
        told = await history(world, inside, between)
        assert "VM vm2 of cluster msk had 2001:db8:1:7::abcd, from" in told.sentence
        assert "no VM had 2001:db8:1:8::" in (await history(world, "2001:db8:1:8::", began)).sentence
        told = await history(world, inside, began, world.clock.now())
        assert [tenure.vm for tenure in told.tenures] == ["vm2", "vm1"]

    async def _gone(self, world: World, vm: str) -> None:
        world.clock.pass_by(60)
        await world.release(vm)
        world.clock.pass_by(QUARANTINE + 1)
        await world.writer.end_rests()

    async def test_where_vms_are_neighbours_no_prefix_is_given(self, world: World) -> None:
        await world.network("2001:db8::/32", "six", segment=True)
        with pytest.raises(Refused, match="nobody routes a prefix to one of them"):
            await world.pool(BLOCK, ipv6_length=64)
        await world.network("2001:db8::/32", "six")
        await world.pool(BLOCK, ipv6_length=64)
        with pytest.raises(Refused, match="nobody routes a prefix to one of them"):
            await world.network("2001:db8::/32", "six", gateway="2001:db8::1")

    async def test_a_range_of_a_node_is_of_whole_prefixes(self, world: World) -> None:
        await world.pool(
            BLOCK, ipv6_length=64, ranges={"n1": "2001:db8:1:4::-2001:db8:1:5::", "n2": "2001:db8:1:6::1"}
        )
        given = [await world.place(f"vm{number}") for number in range(3)]
        assert given == [["2001:db8:1:4::1"], ["2001:db8:1:5::1"], [Code.POOL_EXHAUSTED]]
        assert await world.place("other", node="n2") == ["2001:db8:1:6::1"]


class TestInMemory(Promises):
    @pytest.fixture
    def world(self, in_memory: World) -> World:
        return in_memory


class TestInPostgres(Promises):
    @pytest.fixture
    def world(self, in_postgres: World) -> World:
        return in_postgres


def test_a_block_is_no_smaller_than_what_a_vm_gets_of_it() -> None:
    with pytest.raises(ValidationError, match="2001:db8:1::/96 is smaller than the /64 that each VM should get"):
        a_pool("2001:db8:1::/96", ipv6_length=64)


def test_a_pool_without_ipv6_gives_no_prefixes() -> None:
    with pytest.raises(ValidationError, match="ipv6_length says how much a VM gets of an IPv6 block"):
        a_pool("10.0.0.0/24", ipv6_length=64)


def test_ranges_of_two_nodes_share_no_prefix() -> None:
    ranges = {"n1": "2001:db8:1:4::-2001:db8:1:5::5", "n2": "2001:db8:1:5::6-2001:db8:1:6::"}
    a_pool("2001:db8:1::/48", ranges=ranges)
    with pytest.raises(ValidationError, match="ranges of n1 and n2 overlap"):
        a_pool("2001:db8:1::/48", ranges=ranges, ipv6_length=64)


def test_a_pool_that_was_written_before_gives_single_addresses() -> None:
    body = {"name": "web", "cluster": "msk", "blocks": ["2001:db8::/64"]}
    assert ApplyPool.model_validate_json(json.dumps({"spec": body})).spec == PoolSpec.model_validate_json(
        json.dumps({**body, "ipv6_length": 128})
    )
