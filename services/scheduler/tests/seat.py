"""The scheduler's handlers on a store, without a bus: over Postgres, and over the store that simulations use."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_network
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel

from vmfabric.contract.addressing import FreeAddresses, FreeInPool, ListFree
from vmfabric.contract.admin import NodeState
from vmfabric.contract.cluster import NetworkType, Overcommit, Placement
from vmfabric.contract.envelope import Trace
from vmfabric.contract.errors import Code, TryAgain
from vmfabric.contract.guest import GuestRunning
from vmfabric.contract.model import Event, Request
from vmfabric.contract.placement import PlacementDecision
from vmfabric.contract.vm import VmDeleteRequested, VmMigrateRequested, VmRequested
from vmfabric.database.migrations import migrate
from vmfabric.database.pool import connect
from vmfabric.runtime.message import Message
from vmfabric.scheduler.admin import Administration
from vmfabric.scheduler.desk import Desk
from vmfabric.scheduler.domain.changes import Heard, NodeKey
from vmfabric.scheduler.domain.deadlines import Patience
from vmfabric.scheduler.domain.record import VmKey, VmRecord
from vmfabric.scheduler.draining import Draining
from vmfabric.scheduler.handlers import Handlers
from vmfabric.scheduler.main import MIGRATIONS
from vmfabric.scheduler.memory_store import MemoryStore, Tables
from vmfabric.scheduler.nodes import Nodes
from vmfabric.scheduler.ports import Store
from vmfabric.scheduler.store import PostgresStore
from vmfabric.scheduler.supplies import Supplies
from vmfabric.scheduler.sweep import Sweep
from vmfabric.scheduler.transaction import transaction

from .builders import START, HandClock, a_cluster_spec, a_node_spec, a_vm_request, another_type, the_facts

E = TypeVar("E", bound=Event)
A = TypeVar("A", bound=BaseModel)
Sent = Callable[[], Awaitable[list[str]]]


class Ipam:
    """Says what is free, as often as it is asked."""

    def __init__(self, *pools: FreeInPool) -> None:
        self.pools = pools
        self.is_away = False
        self.asked = 0

    async def __call__(self, subject: str, asked: Request, answer: type[A]) -> A:
        assert (subject, asked) == ("pool.free", ListFree(cluster="msk"))
        self.asked += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise TryAgain(Code.INTERNAL, "nobody answers")
        said = FreeAddresses(cluster="msk", pools=self.pools)
        assert isinstance(said, answer)
        return said


@dataclass
class Scheduler:
    """The handlers on a store, without a bus."""

    store: Store
    sent: Sent
    clock: HandClock = field(default_factory=HandClock)
    sequence: int = 0
    problems: dict[tuple[NodeKey, str], str] = field(default_factory=dict)
    """What nodes say to be in the way of VMs."""

    def __post_init__(self) -> None:
        self.ipam = Ipam()
        self.desk = Desk(self.store, committed=lambda: None, supplies=Supplies(self.ipam, self.clock))
        self.handlers = Handlers(
            self.desk, self.clock, Patience(), problem_of=lambda node, vm: self.problems.get((node, vm))
        )

    async def prepare(self, cpu: int = 16) -> None:
        async with transaction(self.store) as tx:
            tx.put_cluster(a_cluster_spec())
        for number, name in enumerate(("n1", "n2"), start=1):
            await self.has_node(name, number, cpu)

    async def has_node(self, name: str, number: int, cpu: int = 16, **changes: object) -> None:
        async with transaction(self.store) as tx:
            tx.put_node(a_node_spec(name, number, cpu, **changes))
            tx.put_heard(NodeKey("msk", name), Heard(NodeState.JOINED, START, ()))

    async def has_cluster(self, **placement: Any) -> None:
        async with transaction(self.store) as tx:
            tx.put_cluster(a_cluster_spec(placement=Placement(overcommit=Overcommit(cpu=1.0), **placement)))

    async def is_of_type(self, kind: NetworkType, *, subnets: Sequence[str] = ("198.51.100.0/24",)) -> None:
        """Its cluster is; the provider of a routing one sends every node the same, which is enough here."""
        is_routing = kind is NetworkType.ROUTING
        async with transaction(self.store) as tx:
            tx.put_cluster(another_type(kind))
        for number, name in enumerate(("n1", "n2"), start=1):
            sent = tuple(map(ip_network, subnets)) if is_routing else ()
            await self.has_node(name, number, uplink="eth0", subnets=sent)

    def _message(self, event: E, seconds: float | None) -> Message[E]:
        self.sequence += 1
        later = self.sequence if seconds is None else seconds
        return Message(event, Trace.new(), START + timedelta(seconds=later), self.sequence)

    def request(self, vm: str = "vm1", *, seconds: float | None = None, **changes: object) -> Message[VmRequested]:
        return self._message(a_vm_request(vm, **changes), seconds)

    def deletion(self, vm: str = "vm1", *, seconds: float | None = None) -> Message[VmDeleteRequested]:
        return self._message(VmDeleteRequested(cluster="msk", vm=vm), seconds)

    def migration(self, vm: str = "vm1") -> Message[VmMigrateRequested]:
        return self._message(VmMigrateRequested(cluster="msk", vm=vm), None)

    def arrival(self, node: str, vm: str = "vm1") -> Message[GuestRunning]:
        return self._message(GuestRunning(cluster="msk", vm=vm, node=node), None)

    async def hears(self, *stems: str, vm: str = "vm1") -> None:
        for stem in stems:
            record = await self.record(vm)
            assert record is not None
            fact = the_facts(record.generation, vm, record.node)[stem]
            await self.handlers.happened(Message(fact, Trace.new(), START))

    async def is_made(self, vm: str = "vm1", **changes: Any) -> None:
        await self.handlers.requested(self.request(vm, **changes))
        await self.hears("ip.allocated", "iface.ready", "route.announced", vm=vm)

    async def is_gone(self, vm: str = "vm1") -> None:
        await self.handlers.delete_requested(self.deletion(vm))
        await self.hears("route.withdrawn", "iface.removed", "ip.released", vm=vm)

    def sweep(self) -> Sweep:
        nodes = Nodes(self.store, self.clock, committed=lambda: None, is_listening=lambda: False)
        draining = Draining(self.store, self.clock, self.handlers, committed=lambda: None)
        return Sweep(self.store, self.clock, self.handlers, nodes, draining)

    def administration(self) -> Administration:
        return Administration(self.store, self.clock, committed=lambda: None)

    async def record(self, vm: str = "vm1") -> VmRecord | None:
        async with self.store.rows() as rows:
            return await rows.vm(VmKey("msk", vm))

    async def decision(self, vm: str = "vm1") -> PlacementDecision | None:
        async with self.store.rows() as rows:
            return await rows.decision(VmKey("msk", vm))

    async def home(self, vm: str) -> str | None:
        record = await self.record(vm)
        return record.node if record else None

    async def used(self) -> list[int]:
        async with self.store.rows() as rows:
            return [row.used.cpu for row in await rows.nodes()]


@pytest.fixture(params=["postgres", "memory"])
async def scheduler(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Scheduler]:
    is_real = request.param == "postgres"
    async with in_postgres(database_url) if is_real else _in_memory() as made:
        await made.prepare()
        working = asyncio.create_task(made.desk.run())
        yield made
        working.cancel()


@asynccontextmanager
async def in_postgres(database_url: str) -> AsyncIterator[Scheduler]:
    """One of those that share this database."""
    await migrate(database_url, schema="scheduler", directory=MIGRATIONS)
    pool = await connect(database_url, schema="scheduler")

    async def sent() -> list[str]:
        return [_word(*row) for row in await pool.fetch("SELECT subject, headers FROM outbox ORDER BY id")]

    yield Scheduler(PostgresStore(pool), sent)
    await pool.close()


@asynccontextmanager
async def _in_memory() -> AsyncIterator[Scheduler]:
    tables = Tables()

    async def sent() -> list[str]:
        return [_word(message.subject, message.headers) for message in tables.outbox]

    yield Scheduler(MemoryStore(tables, round_trip=lambda: asyncio.sleep(0)), sent)


def _word(subject: str, headers: Mapping[str, str]) -> str:
    return f"{headers['KV-Operation']} {subject}" if "KV-Operation" in headers else subject
