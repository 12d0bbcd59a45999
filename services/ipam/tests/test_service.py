"""The process, as it is run, against real NATS and Postgres."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import asyncpg
import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import BaseModel

from vmfabric.contract import addressing, admin
from vmfabric.contract.addresses import Family
from vmfabric.contract.desired import BUCKET, DesiredPools
from vmfabric.contract.envelope import Trace, outgoing
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.iface import IfaceRemoved
from vmfabric.contract.ip import IpAllocated, IpExhausted, IpRefused, IpReleased
from vmfabric.contract.model import Event
from vmfabric.contract.vm import VmDeleting, VmPlaced
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.clock import SystemClock
from vmfabric.runtime.micro import request

SECONDS = 20.0
MAC = "02:00:00:00:00:01"

A = TypeVar("A", bound=BaseModel)
E = TypeVar("E", bound=Event)


class Facts:
    """Everything that ipam says, in order."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self._changed = asyncio.Event()

    async def received(self, message: Msg) -> None:
        stem = ".".join(message.subject.split(".")[:2])
        kinds = (IpAllocated, IpReleased, IpRefused, IpExhausted)
        kind = next(kind for kind in kinds if kind.subject_template.stem == stem)
        self.seen.append(kind.model_validate_json(message.data))
        self._changed.set()

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.seen if isinstance(event, kind)]

    async def until(self, kind: type[E], wanted: Callable[[list[E]], bool]) -> list[E]:
        try:
            async with asyncio.timeout(SECONDS):
                while not wanted(self.of(kind)):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {SECONDS} s; seen: {self.seen[-10:]}") from None
        return self.of(kind)


class Fabric:
    """The rest of the world."""

    def __init__(self, bus: Bus, client: Client, facts: Facts) -> None:
        self.bus = bus
        self.client = client
        self.facts = facts

    async def ask(self, subject: str, body: BaseModel, answer: type[A]) -> A:
        return answer.model_validate_json(await request(self.client, subject, body.model_dump_json().encode()))

    async def apply(self, *blocks: str, name: str = "web", quarantine: int = 300) -> None:
        spec = {"name": name, "cluster": "msk", "blocks": blocks, "quarantine_seconds": quarantine}
        for prefix in ("10.0.0.0/8", "2001:db8::/32"):
            network = {"spec": {"name": f"net-{prefix[0]}", "prefix": prefix}}
            await self.ask("network.apply", _model(admin.ApplyNetwork, network), admin.Applied)
        await self.ask("pool.apply", _model(admin.ApplyPool, {"spec": spec}), admin.Applied)

    async def say(self, events: Sequence[Event]) -> None:
        at = SystemClock().now()
        for start in range(0, len(events), 100):
            batch = events[start : start + 100]
            await self.bus.send([outgoing(event, source="test", trace=Trace.new(), at=at) for event in batch])

    async def usage(self, family: Family = Family.IPV4) -> admin.Usage:
        return (await self.ask("pool.list", admin.ListOfCluster(), admin.Pools)).pools[0].usage[family]


def _model(kind: type[A], value: object) -> A:
    return kind.model_validate_json(json.dumps(value))


def placed(vm: str, generation: int = 1) -> VmPlaced:
    return VmPlaced(cluster="msk", vm=vm, node="n1", generation=generation, mac=MAC)


def deleting(vm: str, generation: int = 1, *, wired: bool = True) -> VmDeleting:
    return VmDeleting(cluster="msk", vm=vm, node="n1", generation=generation, wired=wired)


def removed(vm: str, generation: int = 1) -> IfaceRemoved:
    return IfaceRemoved(cluster="msk", vm=vm, node="n1", generation=generation)


class Process:
    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    async def end(self) -> int:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(SECONDS):
            return await self._process.wait()

    async def until_it_says(self, text: str) -> None:
        async with asyncio.timeout(SECONDS):
            while text not in self._log.read_text():
                assert self._process.returncode is None, self._log.read_text()[-3000:]
                await asyncio.sleep(0.02)

    def said(self, text: str) -> bool:
        return text in self._log.read_text()


Start = Callable[[], Awaitable[Process]]


@pytest.fixture
async def start(nats_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[Start]:
    started: list[Process] = []

    async def start() -> Process:
        log = tmp_path / f"ipam-{len(started)}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "vmfabric.ipam"),
                env={**os.environ, "VMFABRIC_NATS_URL": nats_url, "VMFABRIC_DATABASE_URL": database_url},
                stdout=output,
                stderr=output,
            )
        started.append(Process(process, log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        await process.end()


@asynccontextmanager
async def the_rest_of_the_world(nats_url: str) -> AsyncIterator[Fabric]:
    client = await nats.connect(nats_url)
    facts = Facts()
    await client.subscribe("ip.>", cb=facts.received)
    async with Bus(nats_url, name="test") as bus:
        await bus.connected()
        yield Fabric(bus, client, facts)
    await client.close()


@pytest.fixture
async def fabric(nats_url: str) -> AsyncIterator[Fabric]:
    async with the_rest_of_the_world(nats_url) as fabric:
        yield fabric


@pytest.fixture
async def ipam(start: Start) -> Process:
    process = await start()
    await process.until_it_says("consumer.created")
    return process


def addresses(events: Sequence[IpAllocated]) -> list[str]:
    return [str(each.address) for event in events for each in event.addresses]


async def test_a_vm_gets_one_address_of_each_family_and_gives_both_back(ipam: Process, fabric: Fabric) -> None:
    await fabric.apply("10.0.0.0/24", "2001:db8::/64")
    await fabric.say([placed("vm1")])
    (allocated,) = await fabric.facts.until(IpAllocated, bool)
    assert addresses([allocated]) == ["10.0.0.0", "2001:db8::"]
    await fabric.say([deleting("vm1"), removed("vm1")])
    (released,) = await fabric.facts.until(IpReleased, bool)
    assert [str(address) for address in released.addresses] == ["10.0.0.0", "2001:db8::"]
    assert await fabric.usage() == admin.Usage(total=256, allocated=0, quarantined=1, free=255)
    ipv6 = await fabric.usage(Family.IPV6)
    assert ipv6 == admin.Usage(total=2**64, allocated=0, quarantined=1, free=2**64 - 1)


async def test_500_vms_at_once_get_500_addresses_though_ipam_is_killed_in_between(
    start: Start, ipam: Process, fabric: Fabric
) -> None:
    await fabric.apply("10.0.0.0/23")
    vms = [f"vm{number}" for number in range(500)]
    publishing = asyncio.create_task(fabric.say([placed(vm) for vm in vms]))
    await fabric.facts.until(IpAllocated, lambda seen: len(seen) >= 50)
    ipam.kill()
    again = await start()
    await publishing
    # Undelivered events come again when their acknowledgement is overdue; the scheduler asks again sooner.
    await again.until_it_says("writer.loaded")
    await fabric.say([placed(vm) for vm in vms])
    await fabric.facts.until(IpAllocated, lambda seen: {event.vm for event in seen} == set(vms))
    by_vm: dict[str, set[str]] = {}
    for event in fabric.facts.of(IpAllocated):
        by_vm.setdefault(event.vm, set()).update(addresses([event]))
    assert all(len(own) == 1 for own in by_vm.values())
    assert len(set().union(*by_vm.values())) == 500
    usage = await fabric.usage()
    assert (usage.allocated, usage.free) == (500, 12)


async def test_a_full_pool_is_said_and_nothing_of_the_other_family_is_held(ipam: Process, fabric: Fabric) -> None:
    await fabric.apply("10.0.0.0/24", "2001:db8::/127")
    await fabric.say([placed("vm1"), placed("vm2"), placed("vm3")])
    (refused,) = await fabric.facts.until(IpRefused, bool)
    assert refused.code is Code.POOL_EXHAUSTED
    (exhausted,) = await fabric.facts.until(IpExhausted, bool)
    assert (exhausted.pool, exhausted.family) == ("web", "ipv6")
    assert (await fabric.usage()).allocated == 2
    assert (await fabric.usage(Family.IPV6)).allocated == 2


async def test_a_released_address_is_given_again_when_its_quarantine_ends(ipam: Process, fabric: Fabric) -> None:
    await fabric.apply("10.0.0.0/32", quarantine=2)
    await fabric.say([placed("vm1")])
    await fabric.facts.until(IpAllocated, bool)
    await fabric.say([deleting("vm1"), removed("vm1")])
    await fabric.facts.until(IpReleased, bool)
    released_at = SystemClock().monotonic()
    await fabric.say([placed("vm2")])
    await fabric.facts.until(IpRefused, bool)
    async with asyncio.timeout(SECONDS):
        while not (await fabric.usage()).free:
            await asyncio.sleep(0.05)
    assert SystemClock().monotonic() - released_at > 1.9
    await fabric.say([placed("vm2", 2)])
    await fabric.facts.until(IpAllocated, lambda seen: addresses(seen) == ["10.0.0.0", "10.0.0.0"])


async def test_a_second_ipam_waits_until_the_first_is_gone(start: Start, ipam: Process, fabric: Fabric) -> None:
    await fabric.apply("10.0.0.0/24")
    second = await start()
    await second.until_it_says("writer.waiting")
    await fabric.say([placed("vm1")])
    await fabric.facts.until(IpAllocated, bool)
    assert not second.said("writer.active")
    ipam.kill()
    await second.until_it_says("writer.active")
    await fabric.say([placed("vm2")])
    await fabric.facts.until(IpAllocated, lambda seen: {*addresses(seen)} == {"10.0.0.0", "10.0.0.1"})


async def test_ipam_ends_in_good_order_when_asked(ipam: Process, fabric: Fabric) -> None:
    await fabric.apply("10.0.0.0/24")
    assert await ipam.end() == 0
    assert ipam.said("service.stopped")


async def test_a_restart_finds_everything_as_it_was(start: Start, ipam: Process, fabric: Fabric) -> None:
    await fabric.apply("10.0.0.0/24")
    await fabric.say([placed(f"vm{number}") for number in range(6)])
    await fabric.facts.until(IpAllocated, lambda seen: len(seen) == 6)
    await fabric.say([deleting("vm2"), removed("vm2"), deleting("vm3")])
    await fabric.facts.until(IpReleased, bool)
    before = await fabric.usage()
    assert await ipam.end() == 0
    again = await start()
    await again.until_it_says("writer.loaded")
    assert await fabric.usage() == before
    await fabric.say([removed("vm3")])
    await fabric.facts.until(IpReleased, lambda seen: {event.vm for event in seen} == {"vm2", "vm3"})


async def test_pools_are_desired_state_and_are_so_again_after_a_restart(
    start: Start, ipam: Process, fabric: Fabric
) -> None:
    await fabric.apply("10.0.0.0/24", "2001:db8::/64")
    await _until_pools(fabric)
    await ipam.end()
    await fabric.client.jetstream().purge_stream(f"KV_{BUCKET}")
    await start()
    await _until_pools(fabric)


async def _until_pools(fabric: Fabric) -> None:
    jetstream = fabric.client.jetstream()
    bucket = await jetstream.key_value(BUCKET)
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                entry = await bucket.get("pools.msk")
                break
            except nats.js.errors.KeyNotFoundError:
                await asyncio.sleep(0.02)
    pools = DesiredPools.from_bytes(entry.value or b"")
    assert [str(prefix) for prefix in pools.prefixes] == ["10.0.0.0/24", "2001:db8::/64"]


async def test_an_operator_sees_why_an_address_is_not_free(ipam: Process, fabric: Fabric) -> None:
    await fabric.apply("10.0.0.0/24")
    await fabric.say([placed("vm1")])
    await fabric.facts.until(IpAllocated, bool)
    asked = admin.ExplainAddress(address=ip_address("10.0.0.0"))
    explained = await fabric.ask("ip.explain", asked, admin.Explanation)
    assert explained.verdict == "10.0.0.0 is held by VM vm1 of cluster msk on node n1, generation 1."
    assert [entry.what for entry in explained.history] == ["allocated"]


async def test_a_hold_ends_by_itself_and_the_address_is_given_then(ipam: Process, fabric: Fabric) -> None:
    await fabric.apply("10.0.0.0/32")
    hold = {"owner": "bob", "pool": "web", "expires_in_seconds": 1}
    reserved = await fabric.ask("ip.reserve", _model(addressing.ReserveAddresses, hold), addressing.Reserved)
    assert [str(each.address) for each in reserved.reservations] == ["10.0.0.0"]
    await fabric.say([placed("vm1")])
    await fabric.facts.until(IpRefused, bool)
    async with asyncio.timeout(SECONDS):
        while not (await fabric.usage()).free:
            await asyncio.sleep(0.05)
    await fabric.say([placed("vm1", 2)])
    await fabric.facts.until(IpAllocated, lambda seen: addresses(seen) == ["10.0.0.0"])
    asked = addressing.AskHistory(address=ip_address("10.0.0.0"))
    history = await fabric.ask("ip.history", asked, addressing.AddressHistory)
    assert [(each.vm, each.owner) for each in history.tenures] == [("vm1", None), (None, "bob")]


async def test_two_overlapping_pools_are_refused_with_a_sentence(ipam: Process, fabric: Fabric) -> None:
    await fabric.apply("10.0.0.0/24")
    with pytest.raises(Refused, match=r"overlaps block 10.0.0.0/24 of pool web") as refused:
        await fabric.apply("10.0.0.128/25", name="other")
    assert refused.value.code is Code.OVERLAP


async def test_the_database_refuses_two_spellings_of_one_address(ipam: Process, database_url: str) -> None:
    connection = await asyncpg.connect(database_url, server_settings={"search_path": "ipam"})
    await connection.execute("INSERT INTO pool VALUES ('web', 'msk', 0)")
    for address in ("10.0.0.1/24", "::ffff:10.0.0.1"):
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(
                "INSERT INTO allocation VALUES ($1::text::inet, 'web', 'msk', 'vm1', 'n1', 1, 0, now())", address
            )
    await connection.close()
