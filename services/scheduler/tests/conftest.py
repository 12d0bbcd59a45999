"""The scheduler with real NATS and Postgres, in this process."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from vmfabric.contract.streams import DEAD_STREAM, FACT_STREAM
from vmfabric.runtime import micro
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.clock import SystemClock
from vmfabric.runtime.desired import KEY_SUBJECT
from vmfabric.runtime.service import Service
from vmfabric.scheduler.main import compose
from vmfabric.scheduler.settings import SchedulerSettings

from .seat import scheduler

__all__ = ["scheduler"]

CLUSTER: dict[str, Any] = {
    "name": "msk",
    "type": "ip-fabric",
    "bgp": {
        "asn": 65000,
        "reflectors": [{"address": "10.0.0.11", "asn": 65000}],
        "community": {"ipv4": "65000:100", "ipv6": "65000:600"},
    },
    "placement": {"overcommit": {"cpu": 1.0}},
}
Json = dict[str, Any]


def a_node(name: str, number: int, cpu: int = 16) -> Json:
    return {
        "name": name,
        "cluster": "msk",
        "address": f"10.0.0.{number}",
        "capacity": {"cpu": cpu, "memory_mb": 65536, "disk_gb": 1000},
    }


def a_request(vm: str = "vm1", **changes: Any) -> Json:
    return {"cluster": "msk", "vm": vm, "cpu": 2, "memory_mb": 2048, "disk_gb": 20, **changes}


@dataclass
class World:
    """A client of the bus that remembers every fact, and answers as the other services would."""

    client: Client
    facts: list[tuple[str, Json]] = field(default_factory=list)
    dead: list[Msg] = field(default_factory=list)
    answering: bool = True
    beating: bool = True

    async def publish(self, subject: str, body: bytes | Mapping[str, Any]) -> None:
        await self.client.publish(subject, body if isinstance(body, bytes) else json.dumps(body).encode())

    async def ask(self, subject: str, body: Mapping[str, Any]) -> Json:
        answer: Json = json.loads(await micro.request(self.client, subject, json.dumps(body).encode()))
        return answer

    async def fact(self, subject: str, where: Callable[[Json], bool] = lambda _body: True) -> Json:
        """The first fact on this subject, past or to come."""
        # What a killed process had in hand comes again 30 s later.
        async with asyncio.timeout(45):
            while True:
                found = next((body for name, body in self.facts if name == subject and where(body)), None)
                if found is not None:
                    return found
                await asyncio.sleep(0.01)

    def count(self, subject: str) -> int:
        return sum(name == subject for name, _body in self.facts)

    async def desired(self) -> dict[str, Json]:
        # Not `keys()` of nats-py, which finds none when the first key comes after it has asked how many there are.
        jetstream = self.client.jetstream()
        info = await jetstream.stream_info("KV_desired", subjects_filter=f"{KEY_SUBJECT}>")
        last = [await jetstream.get_last_msg("KV_desired", subject) for subject in info.state.subjects or {}]
        return {
            (message.subject or "").removeprefix(KEY_SUBJECT): json.loads(message.data or b"{}")
            for message in last
            if "KV-Operation" not in (message.headers or {})
        }

    async def heard(self, message: Msg) -> None:
        body = json.loads(message.data)
        self.facts.append((message.subject, body))
        if self.answering:
            await self.answer(message.subject.split("."), body)

    async def answer(self, subject: list[str], body: Json) -> None:
        """What ipam says at once."""
        who = {name: body.get(name) for name in ("cluster", "vm", "node", "generation")}
        end = f"{body['cluster']}.{body.get('vm')}.{body.get('node')}"
        if subject[:2] == ["vm", "placed"]:
            addresses = [{"address": f"198.51.100.{body['generation'] % 256}", "pool": "public"}]
            await self.publish(f"ip.allocated.{end}", {**who, "addresses": addresses})
        if subject[:2] == ["vm", "deleting"] and not body["wired"]:
            await self.publish(f"ip.released.{end}", {**who, "addresses": []})
        if subject[:2] == ["iface", "removed"]:
            await self.publish(f"ip.released.{end}", {**who, "addresses": ["198.51.100.1"]})

    async def wanted(self, message: Msg) -> None:
        """What the node's services say at once."""
        if not self.answering or not message.data or not message.subject.startswith("$KV.desired.vm."):
            return
        body = json.loads(message.data)
        who = {name: body[name] for name in ("cluster", "vm", "node", "generation")}
        end = f"{body['cluster']}.{body['vm']}.{body['node']}"
        match body["presence"]:
            case "routed":
                guest = {"mac": body["mac"], "mtu": 1500, "addresses": []}
                await self.publish(f"iface.ready.{end}", {**who, "interface": "x_net0", "guest": guest})
                await self.publish(f"route.announced.{end}", {**who, "routes": []})
            case "wired":
                await self.publish(f"route.withdrawn.{end}", who)
            case _:
                await self.publish(f"iface.removed.{end}", who)

    async def beat(self) -> None:
        """Heartbeats of every node that a test may apply."""
        while True:
            for node in ("n1", "n2") if self.beating else ():
                body = {"cluster": "msk", "node": node, "addresses": ["192.0.2.1"], "vms": 0}
                await self.publish(f"node.heartbeat.msk.{node}", body)
            await asyncio.sleep(0.2)


class Start(Protocol):
    """Starts a scheduler; what it returns ends it in the middle of whatever it does."""

    async def __call__(self, *, accepted: int = 0) -> Callable[[], Awaitable[None]]: ...


@pytest.fixture
async def start(nats_url: str, database_url: str) -> AsyncIterator[Start]:
    """Starts a scheduler; what it returns ends it in the middle of whatever it does."""
    running: set[asyncio.Task[None]] = set()

    async def once(*, accepted: int = 0) -> Callable[[], Awaitable[None]]:
        started = asyncio.Event()

        async def serve() -> None:
            from contextlib import AsyncExitStack  # noqa: PLC0415

            settings = SchedulerSettings(
                nats_url=nats_url,
                database_url=database_url,
                phase_seconds=3,
                ask_again_seconds=0.3,
                node_lost_seconds=2,
                accepted_generation=accepted,
            )
            async with (
                Bus(nats_url, name="scheduler") as bus,
                AsyncExitStack() as stack,
                asyncio.TaskGroup() as tasks,
            ):
                await compose(Service("scheduler", bus, SystemClock(), tasks, stack), settings)
                started.set()

        task = asyncio.create_task(serve())
        running.add(task)
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        if task.done():
            waiting.cancel()
            await task

        async def end() -> None:
            task.cancel()
            await asyncio.wait({task})

        return end

    yield once
    for task in running:
        task.cancel()
    ends = await asyncio.gather(*running, return_exceptions=True)
    assert [end for end in ends if not isinstance(end, asyncio.CancelledError)] == []


@pytest.fixture
async def bare(nats_url: str) -> AsyncIterator[World]:
    """A bus with its streams, and no scheduler yet."""
    async with Bus(nats_url, name="setup") as bus:
        await bus.connected()
    client = await nats.connect(nats_url)
    world = World(client)
    stream = client.jetstream()
    await stream.subscribe(">", stream=FACT_STREAM.name, cb=world.heard, ordered_consumer=True)

    async def dead(message: Msg) -> None:
        world.dead.append(message)

    await stream.subscribe(">", stream=DEAD_STREAM.name, cb=dead, ordered_consumer=True)
    await client.subscribe("$KV.desired.>", cb=world.wanted)
    beating = asyncio.create_task(world.beat())
    yield world
    beating.cancel()
    await client.close()


@pytest.fixture
async def world(bare: World, start: Start) -> World:
    """A scheduler with a cluster of two nodes that are heard."""
    await start()
    await until_asked(bare, "cluster.apply", {"spec": CLUSTER})
    names = ("n1", "n2")
    for number, name in enumerate(names, start=1):
        await bare.ask("node.apply", {"spec": a_node(name, number)})
    for name in names:
        await bare.fact(f"node.joined.msk.{name}")
    return bare


async def until_asked(world: World, subject: str, body: Mapping[str, Any]) -> Json:
    """Ask until somebody answers."""
    from vmfabric.contract.errors import TryAgain  # noqa: PLC0415

    async with asyncio.timeout(15):
        while True:
            try:
                return await world.ask(subject, body)
            except TryAgain:
                await asyncio.sleep(0.02)


@pytest.fixture
def start_process(nats_url: str, database_url: str) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a scheduler as a process of its own, which a test may kill."""
    started: list[subprocess.Popen[bytes]] = []
    environment = {
        **os.environ,
        "VMFABRIC_NATS_URL": nats_url,
        "VMFABRIC_DATABASE_URL": database_url,
        "VMFABRIC_ASK_AGAIN_SECONDS": "0.5",
        "VMFABRIC_NODE_LOST_SECONDS": "2",
    }

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-m", "vmfabric.scheduler"], env=environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
