"""What `import` says and asks, with an ipam that has one pool."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from vmfabric.cli import importing
from vmfabric.cli.csv_rows import Format, read
from vmfabric.contract.addressing import ImportAddresses, Imported, RowProblem
from vmfabric.contract.errors import Refused, TryAgain
from vmfabric.runtime import micro
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.micro import Endpoint


class Ipam:
    """Refuses addresses that end with .9."""

    def __init__(self) -> None:
        self.asked: list[ImportAddresses] = []
        self.taken_when_written = ""

    async def answer(self, asked: ImportAddresses) -> Imported:
        self.asked.append(asked)
        problems = tuple(
            RowProblem(row=number, address=row.address, sentence=f"{row.address} is taken")
            for number, row in enumerate(asked.rows, 1)
            if str(row.address).endswith(".9") or (str(row.address) == self.taken_when_written and not asked.dry_run)
        )
        new = 0 if problems else len(asked.rows)
        return Imported(imported=new, unchanged=0, problems=problems, dry_run=asked.dry_run)

    def written(self) -> Sequence[int]:
        return [len(asked.rows) for asked in self.asked if not asked.dry_run]


@pytest.fixture
async def ipam(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ipam]:
    monkeypatch.setenv("VMFABRIC_NATS_URL", nats_url)
    ipam = Ipam()
    async with Bus(nats_url, name="services") as bus:
        endpoint = Endpoint("ip.import", ImportAddresses, ipam.answer, "import")
        serving = asyncio.create_task(micro.serve(bus, name="s", description="d", endpoints=[endpoint]))
        await bus.connected()
        async with asyncio.timeout(5):
            while not await _is_served(bus):
                await asyncio.sleep(0.01)
        yield ipam
        serving.cancel()
        await asyncio.wait({serving})


async def _is_served(bus: Bus) -> bool:
    try:
        await micro.request(bus.client, "ip.import", b"{}")
    except TryAgain:
        return False
    except Refused:
        return True
    raise AssertionError("a request without rows is refused")


async def run(text: str, *, dry_run: bool = False) -> bool:
    return await importing._import(read(text, Format.PLAIN, origin="a.csv"), "web", dry_run=dry_run)


async def test_a_file_is_imported_in_parts_that_the_bus_takes_after_all_were_looked_at(
    ipam: Ipam, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"10.0.{number // 100}.{number % 100 + 100},vm{number}" for number in range(1500)]
    assert await run("\n".join(["address,vm", *rows]))
    assert [asked.dry_run for asked in ipam.asked] == [True, True, False, False]
    assert ipam.written() == [1000, 500]
    assert "imported 1500, 0 were there already" in capsys.readouterr().out


async def test_a_part_is_never_larger_than_what_the_bus_takes(ipam: Ipam) -> None:
    rows = [f"10.0.{number // 100}.{number % 100 + 100},vm{number},{'я' * 500}" for number in range(1000)]
    assert await run("\n".join(["address,vm,note", *rows]))
    assert sum(ipam.written()) == 1000
    assert all(len(asked.model_dump_json().encode()) < 1024 * 1024 for asked in ipam.asked)


async def test_when_the_pool_changes_meanwhile_the_parts_before_stay_and_the_row_is_told(ipam: Ipam) -> None:
    rows = [f"10.0.{number // 100}.{number % 100 + 100},vm{number}" for number in range(2500)]
    ipam.taken_when_written = "10.0.12.100"
    with pytest.raises(
        Refused, match=r"1000 rows are imported, and then row 1202: 10.0.12.100 is taken\. Import the"
    ):
        await run("\n".join(["address,vm", *rows]))
    assert ipam.written() == [1000, 1000], "nothing after the part that has a problem"


async def test_one_row_with_a_problem_keeps_all_from_being_imported_and_every_problem_is_told(
    ipam: Ipam, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not await run("address,vm\n10.0.0.1,vm1\nnonsense,vm2\n10.0.0.9,vm3\n")
    assert ipam.written() == []
    assert capsys.readouterr().out.splitlines() == [
        "row 3 address: not an IPv4 or IPv6 address",
        "row 4 10.0.0.9 is taken",
        "nothing is imported: 2 of 3 rows have a problem",
    ]


async def test_a_dry_run_only_asks(ipam: Ipam, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("address,vm\n10.0.0.1,vm1\n", dry_run=True)
    assert ipam.written() == []
    assert "would be imported 1" in capsys.readouterr().out


def test_a_file_without_a_row_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "empty.csv"
    file.write_text("address,vm\n")
    with pytest.raises(Refused, match="has no row in it"):
        importing.import_file(file, "web")


def test_options_of_netbox_are_refused_for_a_plain_file(tmp_path: Path) -> None:
    file = tmp_path / "plain.csv"
    file.write_text("address,vm\n10.0.0.1,vm1\n")
    with pytest.raises(Refused, match="are of --format netbox"):
        importing.import_file(file, "web", vrf="customers")
    with pytest.raises(Refused, match="no row of VRF customers in it"):
        importing.import_file(file, "web", form=Format.NETBOX, vrf="customers")
