"""The four services, put together as their `main.py` does it, on what is simulated."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar, cast

import asyncpg
from nats.aio.client import Client
from pydantic import BaseModel

from simulation.bus_client import SimulatedClient
from simulation.bus_server import Server
from simulation.faults import Faults
from simulation.nodes import Node, NodeFrr, NodeKernel
from simulation.plant import Plant
from simulation.process import Process
from simulation.stores import IpamStore, OutboxRows, SchedulerStore
from simulation.virtual_time import VirtualClock
from vmfabric.bgp_announcer.announcer import Announcer
from vmfabric.bgp_announcer.main import watch_sessions
from vmfabric.contract.addressing import ListFree
from vmfabric.contract.admin import (
    ApplyCluster,
    ApplyNetwork,
    ApplyNode,
    ApplyPool,
    DrainNode,
    ListOfCluster,
    NodeState,
    UndrainNode,
)
from vmfabric.contract.cluster import NetworkType
from vmfabric.contract.desired import HANDED_OUT_KEY, NODE_KEY, POOLS_KEY, VM_KEY
from vmfabric.contract.errors import Code, TryAgain
from vmfabric.contract.model import Request
from vmfabric.contract.names import VmName
from vmfabric.contract.node import NodeHeartbeat
from vmfabric.contract.streams import FACT_STREAM, REQUEST_STREAM
from vmfabric.database.outbox import Relay
from vmfabric.database.pool import TRANSIENT
from vmfabric.database.repeated import Repeated
from vmfabric.ipam.applying import Applying
from vmfabric.ipam.domain.stock import Stock
from vmfabric.ipam.handlers import Handlers as IpamHandlers
from vmfabric.ipam.memory_store import InMemoryStore
from vmfabric.ipam.reporting import free_addresses
from vmfabric.ipam.republish import Republish as PoolsRepublish
from vmfabric.ipam.sweep import Sweep as IpamSweep
from vmfabric.ipam.writer import Writer
from vmfabric.node_agent.agent import Agent
from vmfabric.node_agent.main import _beat
from vmfabric.node_agent.samples import A_MOMENT
from vmfabric.node_agent.uplink import UplinkMove
from vmfabric.reconcile.loop import Loop
from vmfabric.runtime.bucket import read_bucket
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.consumer import Consumer
from vmfabric.runtime.inbound import parse
from vmfabric.runtime.mirror import Mirror
from vmfabric.runtime.service import Interrupted
from vmfabric.runtime.snapshot import Confirmations
from vmfabric.scheduler.admin import Administration
from vmfabric.scheduler.desk import Desk
from vmfabric.scheduler.domain.deadlines import Patience
from vmfabric.scheduler.draining import Draining
from vmfabric.scheduler.handlers import Handlers
from vmfabric.scheduler.memory_store import Tables
from vmfabric.scheduler.nodes import Nodes
from vmfabric.scheduler.republish import EVERY_SECONDS, Republish
from vmfabric.scheduler.standing import BehindError, check_standing
from vmfabric.scheduler.supplies import Supplies
from vmfabric.scheduler.sweep import Sweep

A = TypeVar("A", bound=BaseModel)
PHASE_SECONDS = 30.0
MOVE_SECONDS = 20.0
_SWEEP_SECONDS = 2.0
_REMEMBER = timedelta(days=8)
_OPERATOR_SECONDS = 4.0
_RESYNC_SECONDS = 15.0
_HEARTBEAT_SECONDS = 4.0
_SESSION_SECONDS = 3.0
_BUCKET_SECONDS = (0.0, 2.0)
"""A life of a node's service begins with its snapshot, or with the bucket if that can be read."""
_THROTTLE_SECONDS = 0.02


@dataclass
class Ground:
    """What the processes stand on, and what stays when they die."""

    server: Server
    faults: Faults
    clock: VirtualClock
    plant: Plant
    nodes: dict[str, Node]
    tables: Tables = field(default_factory=Tables)
    ipam: InMemoryStore = field(default_factory=InMemoryStore)
    drains: dict[str, DrainNode] = field(default_factory=dict)
    """What operators want: nodes that are to be empty."""
    ipam_process: Process | None = None
    """The one that lives, or lived last."""
    clients: dict[str, SimulatedClient] = field(default_factory=dict)
    """The connection of each process that lives, or lived last."""
    scheduler_committed: Callable[[], None] = lambda: None
    ipam_committed: Callable[[], None] = lambda: None
    guarded: Callable[[str], None] = lambda _sentence: None

    def __post_init__(self) -> None:
        self.scheduler_outbox = OutboxRows(self.tables.outbox)
        self.ipam_outbox = OutboxRows(self.ipam.outbox)

    def bus(self, process: Process, name: str) -> Bus:
        """The real connection of the runtime over the simulated client."""
        client = self.clients[process.name] = SimulatedClient(self.server, process)
        return Bus("nats://simulated", name=name, clock=self.clock, client=cast("Client", client))


async def _stands(store: SchedulerStore, bus: Bus) -> None:
    """The database is never behind here: who says so is wrong."""
    while True:
        try:
            await check_standing(
                store, partial(read_bucket, bus, [VM_KEY.pattern(), HANDED_OUT_KEY.pattern()]), accepted=0
            )
        except BehindError as error:
            raise AssertionError(str(error)) from error
        except Interrupted:
            await asyncio.sleep(0.5)
        except TRANSIENT:
            await asyncio.sleep(0.5)
        else:
            return


async def scheduler(ground: Ground, process: Process) -> None:
    """One life of the scheduler."""
    async with ground.bus(process, "scheduler") as bus, asyncio.TaskGroup() as tasks:
        pool = cast("asyncpg.Pool", ground.scheduler_outbox.of(process, ground.faults))
        relay = Relay(pool, bus)
        store = SchedulerStore(ground.tables, process, ground.faults, committed=ground.scheduler_committed)
        supplies = _supplies(ground, process) if ground.plant.type is NetworkType.ROUTING else None
        desk = Desk(store, committed=relay.wake, supplies=supplies)
        handlers = Handlers(desk, ground.clock, Patience(phase=PHASE_SECONDS, move=MOVE_SECONDS, first=3.0))
        nodes = Nodes(store, ground.clock, committed=relay.wake, is_listening=lambda: bus.is_connected)
        read = partial(read_bucket, bus, [NODE_KEY.pattern(), VM_KEY.pattern(), HANDED_OUT_KEY.pattern()])
        republish = Republish(store, read, committed=relay.wake)
        administration = Administration(store, ground.clock, committed=relay.wake)
        draining = Draining(store, ground.clock, handlers, committed=relay.wake)
        republishing = Repeated("republish", republish.once, every=EVERY_SECONDS)
        bus.on_reconnect(republishing.wake)
        await bus.connected()
        await _stands(store, bus)

        async def heard(message: Any) -> None:
            nodes.heard(parse(NodeHeartbeat, message.subject, message.data))

        await bus.client.subscribe(NodeHeartbeat.subject_template.pattern(), cb=heard)
        requests = Consumer(
            bus, stream=REQUEST_STREAM, durable="scheduler", routes=handlers.requests(), on_invalid=handlers.invalid
        )
        facts = Consumer(bus, stream=FACT_STREAM, durable="scheduler", routes=(*handlers.facts(), *draining.facts()))
        for work in (
            relay.run(),
            desk.run(),
            requests.run(),
            facts.run(),
            Sweep(store, ground.clock, handlers, nodes, draining, interval=_SWEEP_SECONDS).run(),
            republishing.run(),
            _until_applied(lambda: _apply_cluster(administration, ground.plant)),
            _operate(administration, ground),
        ):
            tasks.create_task(work)


def _supplies(ground: Ground, process: Process) -> Supplies:
    """ipam's answer without the bus: what it has written, unless it does not run."""

    async def ask(subject: str, asked: Request, answer: type[A]) -> A:
        await process.point()
        if ground.ipam_process is None or ground.ipam_process.is_dead:
            raise TryAgain(Code.INTERNAL, f"no service answers {subject}")
        content = await ground.ipam.load()
        stock = Stock(content.networks, content.pools, content.in_use, content.reservations)
        said = free_addresses(stock, ListFree.model_validate(asked).cluster)
        assert isinstance(said, answer)
        return said

    return Supplies(ask, ground.clock)


async def ipam(ground: Ground, process: Process) -> None:
    """One life of ipam."""
    ground.ipam_process = process
    async with ground.bus(process, "ipam") as bus, asyncio.TaskGroup() as tasks:
        relay = Relay(cast("asyncpg.Pool", ground.ipam_outbox.of(process, ground.faults)), bus)
        store = IpamStore(
            ground.ipam, ground.ipam_outbox, relay, process, ground.faults,
            committed=ground.ipam_committed, guarded=ground.guarded,
        )  # fmt: skip
        writer = Writer(store, ground.clock)
        republish = PoolsRepublish(writer, store, partial(read_bucket, bus, [POOLS_KEY.pattern()]))
        republishing = Repeated("republish", republish.once, every=EVERY_SECONDS)
        bus.on_reconnect(republishing.wake)
        await bus.connected()
        applying = Applying(writer, store)
        consumer = Consumer(bus, stream=FACT_STREAM, durable="ipam", routes=IpamHandlers(writer).routes())
        for work in (
            writer.run(),
            relay.run(),
            republishing.run(),
            IpamSweep(writer, store, ground.clock, fences=_REMEMBER, history=_REMEMBER).run(),
            consumer.run(),
            _until_applied(lambda: _apply_pools(applying, ground.plant)),
        ):
            tasks.create_task(work)


async def node_agent(ground: Ground, node: Node, process: Process) -> None:
    """One life of a node-agent."""
    async with ground.bus(process, "node-agent") as bus, asyncio.TaskGroup() as tasks:
        loop: Loop

        mirror = Mirror(
            bus,
            cluster=ground.plant.cluster.name,
            node=node.name,
            snapshot=node.directory / "node-agent.desired.json",
            on_change=lambda vm: _mark(loop, vm),
            bucket_seconds=ground.faults.random.choice(_BUCKET_SECONDS),
        )
        kernel = NodeKernel(node, process, ground.faults)
        agent = Agent(
            cluster=ground.plant.cluster.name,
            node=node.name,
            view=mirror,
            kernel=kernel,
            publisher=bus,
            confirmations=Confirmations(node.directory / "node-agent.confirmed.json"),
            uplink=UplinkMove(kernel, node.directory / "node-agent.uplink.json", lambda: A_MOMENT),
        )
        loop = Loop(agent.step, throttle=_THROTTLE_SECONDS, resync=_RESYNC_SECONDS)
        bus.on_reconnect(loop.mark_all)
        node.watch = loop.mark_all
        for work in (mirror.run(), loop.run(), _beat(bus, agent, _HEARTBEAT_SECONDS)):
            tasks.create_task(work)


async def bgp_announcer(ground: Ground, node: Node, process: Process) -> None:
    """One life of a bgp-announcer."""
    async with ground.bus(process, "bgp-announcer") as bus, asyncio.TaskGroup() as tasks:
        loop: Loop

        mirror = Mirror(
            bus,
            cluster=ground.plant.cluster.name,
            node=node.name,
            snapshot=node.directory / "bgp" / "desired.json",
            on_change=lambda vm: _mark(loop, vm),
            bucket_seconds=ground.faults.random.choice(_BUCKET_SECONDS),
        )
        announcer = Announcer(
            mirror,
            NodeFrr(node, process, ground.faults),
            publisher=bus,
            confirmations=Confirmations(node.directory / "bgp" / "confirmed.json"),
            sessions=node.directory / "bgp" / "sessions.json",
            clock=ground.clock,
        )
        loop = Loop(announcer.step, resync=_RESYNC_SECONDS)
        for work in (mirror.run(), loop.run(), watch_sessions(announcer, loop, _SESSION_SECONDS)):
            tasks.create_task(work)


def _mark(loop: Loop, vm: VmName | None) -> None:
    if vm is None:
        loop.mark_all()
    else:
        loop.mark(vm)


async def _until_applied(apply: Callable[[], Any]) -> None:
    """Operators apply, again and again, until it is done; what is there already does not change."""
    while True:
        try:
            await apply()
        except OSError:
            await asyncio.sleep(1.0)
        else:
            return


async def _apply_cluster(administration: Administration, plant: Plant) -> None:
    await administration.apply_cluster(ApplyCluster(spec=plant.cluster))
    for node in plant.nodes:
        await administration.apply_node(ApplyNode(spec=node))


async def _operate(administration: Administration, ground: Ground) -> None:
    """Operators drain nodes, and put those to use again that need not be empty or are back after an evacuation."""
    while True:
        await asyncio.sleep(_OPERATOR_SECONDS)
        try:
            found = await administration.list_nodes(ListOfCluster(cluster=ground.plant.cluster.name))
            for node in found.nodes:
                wanted = ground.drains.get(node.spec.name)
                if wanted is not None:
                    await administration.drain_node(wanted)
                elif node.drain is not None and node.state is NodeState.JOINED:
                    await administration.undrain_node(UndrainNode(cluster=node.spec.cluster, node=node.spec.name))
        except OSError:
            continue


async def _apply_pools(applying: Applying, plant: Plant) -> None:
    for network in plant.networks:
        await applying.apply_network(ApplyNetwork(spec=network))
    for pool in plant.pools:
        await applying.apply_pool(ApplyPool(spec=pool))
