"""What `apply --dry-run` says, with services that know of nothing yet."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from vmfabric.cli import apply
from vmfabric.cli.documents import Document, read
from vmfabric.contract.admin import Applied, Change
from vmfabric.contract.errors import Code, Refused, TryAgain
from vmfabric.contract.model import Request
from vmfabric.runtime import micro
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.micro import Endpoint

EXAMPLE = Path(__file__).parents[3] / "deploy" / "examples" / "ip-fabric.yaml"
TOLD = {"pool": Code.UNKNOWN_NETWORK, "node": Code.UNKNOWN_CLUSTER}
"""What services say of what needs something that is not there."""


class Asked(Request):
    """Any `*.apply`."""

    spec: dict[str, Any]
    dry_run: bool


def endpoint(kind: str) -> Endpoint[Any]:
    async def answer(asked: Asked) -> BaseModel:
        if kind in TOLD:
            raise Refused(TOLD[kind], "it is not there")
        return Applied(kind=kind, name=asked.spec["name"], change=Change.CREATED, dry_run=asked.dry_run)

    return Endpoint(f"{kind}.apply", Asked, answer, "make it so")


async def is_served(bus: Bus) -> bool:
    try:
        await micro.request(bus.client, "node.apply", b"{}")
    except TryAgain:
        return False
    except Refused:
        return True
    raise AssertionError("a request without a spec is refused")


@pytest.fixture
async def services(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setenv("VMFABRIC_NATS_URL", nats_url)
    async with Bus(nats_url, name="services") as bus:
        kinds = ("network", "pool", "cluster", "node")
        endpoints = [endpoint(kind) for kind in kinds]
        serving = asyncio.create_task(micro.serve(bus, name="s", description="d", endpoints=endpoints))
        await bus.connected()
        async with asyncio.timeout(5):
            while not await is_served(bus):
                await asyncio.sleep(0.01)
        yield
        serving.cancel()
        await asyncio.wait({serving})


async def rehearse(documents: tuple[Document, ...], capsys: pytest.CaptureFixture[str]) -> tuple[bool, list[str]]:
    is_fine = await apply._rehearse(documents)
    return is_fine, capsys.readouterr().out.splitlines()


async def test_what_the_same_file_would_create_is_taken_into_account(
    services: None, capsys: pytest.CaptureFixture[str]
) -> None:
    is_fine, said = await rehearse(read(EXAMPLE.read_text(), origin="example"), capsys)
    assert is_fine
    assert said[:3] == [f"would be created {what}" for what in ("network public4", "network public6", "cluster msk")]
    assert said[3].endswith("pool public; cannot be checked further before network public4 exists")
    assert said[4] == "would be created node n1; cannot be checked further before cluster msk exists"


async def test_what_nothing_in_the_file_makes_would_be_refused_and_the_rest_is_looked_at(
    services: None, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = read(EXAMPLE.read_text(), origin="example")
    is_fine, said = await rehearse((documents[4], *documents[:3]), capsys)
    assert not is_fine
    assert said[0] == "would be refused node n1: it is not there"
    assert said[-1] == "would be created cluster msk"


async def test_an_apply_that_is_refused_says_what_was_not_applied_behind_it(services: None) -> None:
    with pytest.raises(Refused, match=r"pool public: it is not there; .* \(2 more\)"):
        await apply._apply(read(EXAMPLE.read_text(), origin="example"))
