"""The conversation with QEMU, with somebody else at its end."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest

from vmfabric.lab.errors import LabError
from vmfabric.lab.qmp import Qmp

STAMP = {"seconds": 100, "microseconds": 250000}


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Qmp, asyncio.StreamReader, asyncio.StreamWriter]]:
    ours, its = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=its)
    say(writer, {"QMP": {}}, {"return": {}})
    qmp = await Qmp.open(ours)
    assert json.loads(await reader.readline())["execute"] == "qmp_capabilities"
    yield qmp, reader, writer
    qmp.close()
    writer.close()


Ends = tuple[Qmp, asyncio.StreamReader, asyncio.StreamWriter]


def say(writer: asyncio.StreamWriter, *lines: object) -> None:
    writer.writelines(json.dumps(line).encode() + b"\n" for line in lines)


async def test_an_event_that_comes_before_the_answer_is_kept(ends: Ends) -> None:
    qmp, reader, writer = ends
    say(writer, {"event": "STOP", "timestamp": STAMP}, {"return": {"status": "active"}})
    assert await qmp.execute("query-migrate", some_name=1) == {"status": "active"}
    assert json.loads(await reader.readline())["arguments"] == {"some-name": 1}
    assert (await qmp.event("STOP")).at == 100.25


async def test_an_event_is_told_from_others_by_its_data(ends: Ends) -> None:
    qmp, _, writer = ends
    for status in ("active", "completed"):
        say(writer, {"event": "MIGRATION", "timestamp": STAMP, "data": {"status": status}})
    assert (await qmp.event("MIGRATION", status="completed")).data == {"status": "completed"}
    with pytest.raises(LabError, match="not said MIGRATION .*failed.* but MIGRATION .*active"):
        await qmp.event("MIGRATION", status="failed", seconds=0.01)


async def test_a_refusal_and_an_end_are_told(ends: Ends) -> None:
    qmp, _, writer = ends
    say(writer, {"error": {"class": "GenericError", "desc": "no such thing"}})
    with pytest.raises(LabError, match="QEMU refuses migrate: no such thing"):
        await qmp.execute("migrate", uri="nowhere")
    writer.close()
    with pytest.raises(LabError, match="QEMU has ended"):
        await qmp.execute("quit")
