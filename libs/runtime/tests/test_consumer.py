"""The runner against a real server."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from nats.aio.msg import Msg

from vmfabric.contract.envelope import Trace
from vmfabric.contract.errors import Code, Refused, TryAgain
from vmfabric.contract.streams import DEAD_STREAM, REQUEST_STREAM
from vmfabric.contract.vm import VmRequested
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.consumer import Consumer
from vmfabric.runtime.inbound import Invalid
from vmfabric.runtime.message import Message, Route

REQUEST = {"cluster": "msk", "vm": "vm1", "cpu": 2, "memory_mb": 2048, "disk_gb": 20}


class Recorder:
    def __init__(self) -> None:
        self.seen: asyncio.Queue[Message[VmRequested]] = asyncio.Queue()
        self.invalid: asyncio.Queue[Invalid] = asyncio.Queue()
        self.errors: list[Exception] = []

    async def requested(self, message: Message[VmRequested]) -> None:
        self.seen.put_nowait(message)
        if self.errors:
            raise self.errors.pop(0)

    async def refused(self, invalid: Invalid) -> None:
        self.invalid.put_nowait(invalid)


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with Bus(nats_url, name="test") as bus:
        await bus.connected()
        yield bus


@pytest.fixture
async def recorder(bus: Bus) -> AsyncIterator[Recorder]:
    recorder = Recorder()
    consumer = Consumer(
        bus,
        stream=REQUEST_STREAM,
        durable="test",
        routes=[Route(VmRequested, recorder.requested)],
        on_invalid=recorder.refused,
    )
    task = asyncio.create_task(consumer.run())
    yield recorder
    task.cancel()
    await asyncio.wait({task})


async def dead_letter(bus: Bus) -> Msg:
    subscription = await bus.jetstream.subscribe("dead.>", stream=DEAD_STREAM.name, ordered_consumer=True)
    return await subscription.next_msg(timeout=5)


async def test_bare_json_without_headers_reaches_the_handler(bus: Bus, recorder: Recorder) -> None:
    await bus.client.publish("vm.requested", json.dumps(REQUEST).encode())
    message = await asyncio.wait_for(recorder.seen.get(), 5)
    assert message.event.vm == "vm1"


async def test_a_trace_goes_with_the_event(bus: Bus, recorder: Recorder) -> None:
    trace = Trace.new()
    await bus.publish(VmRequested.model_validate(REQUEST), trace)
    message = await asyncio.wait_for(recorder.seen.get(), 5)
    assert message.trace == trace


async def test_an_event_is_tried_again_until_the_handler_succeeds(bus: Bus, recorder: Recorder) -> None:
    recorder.errors = [TryAgain(Code.INTERNAL, "not yet"), ValueError("a bug")]
    await bus.publish(VmRequested.model_validate(REQUEST), Trace.new())
    for _ in range(3):
        await asyncio.wait_for(recorder.seen.get(), 5)
    assert not recorder.errors


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"[" * 100_000, "bytes"),
        (json.dumps({**REQUEST, "vm": "a.b"}).encode(), "vm"),
        (json.dumps({**REQUEST, "cpu": "2"}).encode(), "cpu"),
        (json.dumps({**REQUEST, "nope": 1}).encode(), "nope"),
        (b'"' + b"x" * 1_000_000 + b'"', "bytes"),
    ],
)
async def test_input_that_cannot_be_read_is_kept_with_its_reason_and_the_next_is_served(
    bus: Bus, recorder: Recorder, body: bytes, reason: str
) -> None:
    await bus.client.publish("vm.requested", body)
    await bus.publish(VmRequested.model_validate(REQUEST), Trace.new())
    dead = await dead_letter(bus)
    assert dead.subject == "dead.vm.requested"
    assert dead.data == body[: len(dead.data)]
    assert dead.headers is not None
    assert reason in dead.headers["vmfabric-reason"]
    assert dead.headers["vmfabric-bytes"] == str(len(body))
    assert (await asyncio.wait_for(recorder.seen.get(), 5)).event.vm == "vm1"


async def test_a_refusal_of_the_handler_is_a_dead_letter(bus: Bus, recorder: Recorder) -> None:
    recorder.errors = [Refused(Code.CONFLICT, "no, and never")]
    await bus.publish(VmRequested.model_validate(REQUEST), Trace.new())
    dead = await dead_letter(bus)
    assert dead.headers is not None
    assert dead.headers["vmfabric-reason"] == "no, and never"


async def test_a_subject_that_names_another_vm_than_the_body_is_refused(bus: Bus, recorder: Recorder) -> None:
    await bus.client.publish("vm.requested.msk.vm2", json.dumps(REQUEST).encode())
    invalid = await asyncio.wait_for(recorder.invalid.get(), 5)
    assert "vm.requested.msk.vm2" in invalid.reason
    assert (invalid.cluster, invalid.vm) == ("msk", "vm1")


async def test_events_of_one_vm_are_handled_in_their_order(bus: Bus, recorder: Recorder) -> None:
    for cpu in range(1, 101):
        await bus.publish(VmRequested.model_validate({**REQUEST, "cpu": cpu}), Trace.new())
    seen = [(await asyncio.wait_for(recorder.seen.get(), 5)).event.cpu for _ in range(100)]
    assert seen == list(range(1, 101))


async def test_events_are_consumed_after_all_streams_were_deleted(bus: Bus, recorder: Recorder) -> None:
    await bus.client.publish("vm.requested", json.dumps(REQUEST).encode())
    await asyncio.wait_for(recorder.seen.get(), 5)
    await bus.jetstream.delete_stream(REQUEST_STREAM.name)

    async def publish_until_kept() -> None:
        while True:
            try:
                await bus.publish(VmRequested.model_validate(REQUEST), Trace.new())
            except TryAgain:
                await asyncio.sleep(0.1)
            else:
                return

    await asyncio.wait_for(publish_until_kept(), 15)
    await asyncio.wait_for(recorder.seen.get(), 10)
