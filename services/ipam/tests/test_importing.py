"""Addresses that were in use before vmfabric, over both stores."""

from typing import Any

import pytest
from ipam_world import World, wish

from vmfabric.contract.addresses import parse_host
from vmfabric.contract.addressing import ImportAddresses, Imported, ImportRow
from vmfabric.contract.errors import Code, Refused


def row(address: str, **fields: Any) -> ImportRow:
    return ImportRow(address=parse_host(address), **fields)


async def bring_in(world: World, *rows: ImportRow, pool: str = "web", dry_run: bool = False) -> Imported:
    return await world.importing.import_rows(ImportAddresses(pool=pool, rows=rows, dry_run=dry_run))


class Promises:
    """Each is run over both stores."""

    async def test_imported_addresses_are_given_only_to_the_vms_that_have_them(self, world: World) -> None:
        await world.pool("10.0.0.0/29", "2001:db8::/64")
        rows = (row("10.0.0.0", vm="vm1"), row("10.0.0.1", owner="Bob"), row("2001:db8::", vm="vm1", owner="Bob"))
        imported = await bring_in(world, *rows)
        assert (imported.imported, imported.unchanged, imported.problems) == (3, 0, ())
        assert await world.place("vm2") == ["10.0.0.2", "2001:db8::1"]
        own = (wish(address="10.0.0.0"), wish("ipv6", address="2001:db8::"))
        assert await world.place("vm1", 1, *own) == ["10.0.0.0", "2001:db8::"]
        assert await world.place("vm3", 1, wish(address="10.0.0.1")) == [Code.ADDRESS_TAKEN]

    async def test_the_same_import_again_changes_nothing_and_new_rows_of_it_are_added(self, world: World) -> None:
        await world.pool("10.0.0.0/29")
        await bring_in(world, row("10.0.0.0", vm="vm1"), row("10.0.0.1", vm="vm2"))
        await world.place("vm1", 1, wish(address="10.0.0.0"))
        world.clock.pass_by(60)
        again = await bring_in(world, row("10.0.0.0", vm="vm1"), row("10.0.0.1", vm="vm2"), row("10.0.0.4", vm="vm3"))
        assert (again.imported, again.unchanged, again.problems) == (1, 2, ())

    async def test_one_row_with_a_problem_keeps_all_out_and_each_problem_is_told_with_its_row(
        self, world: World
    ) -> None:
        await world.network("10.0.0.0/8", gateway="10.0.0.7")
        await world.pool("10.0.0.0/28", ranges={"n1": "10.0.0.1-10.0.0.9", "n2": "10.0.0.10"})
        await world.pool("10.0.1.0/24", name="far")
        await world.place("vm0", 1, wish(pool="web"))
        await world.reserve("10.0.0.3", owner="alice")
        rows = (
            row("10.0.0.5", vm="vm5"),
            row("10.0.0.1", vm="vm1"),
            row("10.0.0.3", vm="vm1"),
            row("10.0.1.1", vm="vm1"),
            row("10.0.0.7", vm="vm1"),
            row("10.0.0.5", vm="vm6"),
            row("10.0.0.10", vm="vm7", node="n1"),
            row("10.0.0.1", vm="vm0"),
        )
        imported = await bring_in(world, *rows)
        assert (imported.imported, [(it.row, it.sentence) for it in imported.problems]) == (
            0,
            [
                (2, "10.0.0.1 is held by VM vm0; reserve it for that VM (for_vm), or delete it first"),
                (3, "10.0.0.3 is reserved for alice; ip.release ends that"),
                (4, "10.0.1.1 lies in no block of pool web, but in pool far"),
                (5, "10.0.0.7 cannot be given: it is the gateway of its network"),
                (6, "10.0.0.5 stands in row 1 already"),
                (7, "10.0.0.10 is in the range of node n2 of pool web, not n1"),
                (8, "10.0.0.1 stands in row 2 already"),
            ],
        )
        assert await world.place("vm9", 1, wish(address="10.0.0.5")) == ["10.0.0.5"]

    async def test_an_import_makes_no_hold_permanent_without_a_word(self, world: World) -> None:
        await world.pool("10.0.0.0/29")
        await world.reserve("10.0.0.1", owner="bob", expires_in_seconds=3600)
        rows = (row("10.0.0.0", vm="vm1"), row("10.0.0.1", owner="bob"))
        (problem,) = (await bring_in(world, *rows)).problems
        assert problem.row == 2
        assert "10.0.0.1 is reserved for bob until 2030-01-01T01:00:00+00:00, and an import" in problem.sentence
        await world.reserve("10.0.0.1", owner="bob")
        assert not (await bring_in(world, *rows)).problems

    async def test_a_dry_run_says_what_would_be_imported_and_imports_nothing(self, world: World) -> None:
        await world.pool("10.0.0.0/29")
        assert (await bring_in(world, row("10.0.0.0", vm="vm1"), dry_run=True)).imported == 1
        assert await world.place("vm2") == ["10.0.0.0"]

    async def test_a_pool_that_is_not_there_is_refused(self, world: World) -> None:
        with pytest.raises(Refused, match="there is no pool none") as refused:
            await bring_in(world, row("10.0.0.0", vm="vm1"), pool="none")
        assert refused.value.code is Code.UNKNOWN_POOL


class TestInMemory(Promises):
    @pytest.fixture
    def world(self, in_memory: World) -> World:
        return in_memory


class TestPostgres(Promises):
    @pytest.fixture
    def world(self, in_postgres: World) -> World:
        return in_postgres
