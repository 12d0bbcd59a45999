"""One seed: a small data centre, a workload, misfortunes, then peace; and what came of it."""

import asyncio
import gc
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from random import Random

from history.ownership import Ownership, said_at
from simulation import services
from simulation.bus_server import Kept, Server
from simulation.checker import Checker
from simulation.faults import EVENTS, SHAKING, Fault, Faults
from simulation.hypervisor import Hypervisor
from simulation.logs import errors_watched, leaves
from simulation.nodes import Node
from simulation.plant import CLUSTER, FENCE, REFLECTORS, plant
from simulation.process import Process, Supervisor
from simulation.promises import Promises, unsettled
from simulation.services import Ground
from simulation.story import Story
from simulation.virtual_time import VirtualClock, VirtualLoop
from simulation.workload import Asked, workload
from vmfabric.bgp_announcer.ports import FrrError
from vmfabric.contract.admin import DrainNode, NodeState
from vmfabric.contract.cluster import NetworkType
from vmfabric.contract.errors import TryAgain
from vmfabric.contract.node import NodeFenced
from vmfabric.contract.streams import REQUEST_STREAM
from vmfabric.lab.client import read
from vmfabric.node_agent.ports import KernelUnreadableError

_WORK_SECONDS = 40.0
_PEACE_SECONDS = 35.0
_SETTLE_SECONDS = 300.0
_QUIET_SECONDS = {500: 3600.0, 5: 65.0, 1: 16.0}
"""Of each 500th seed an hour, of each fifth longer than anything is looked at again, else longer than most is."""
_RARE = {Fault.BUS_EMPTIED, Fault.REBOOT, Fault.NODE_LOST, Fault.NODE_UNHEARD}
_LOST_SECONDS = 25.0
_FENCED_SECONDS = 20.0
_DRAINED_SECONDS = (2.0, 30.0)
_CPUS = (64, 64, 2)
"""Of a node: in every third seed so few that VMs find no room."""
_COLLECTED_AT = 20_000
_EXPECTED = (TryAgain, FrrError, KernelUnreadableError, OSError)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a seed."""

    seed: int
    violation: str | None
    story: Story
    faults: Counter[Fault]
    answers: Counter[str]
    failures: frozenset[str]
    """The codes of vm.failed."""
    is_calm: bool


def _type_of(seed: int) -> NetworkType:
    """Of each tenth seed one of the types that announce nothing."""
    return {7: NetworkType.ROUTING, 11: NetworkType.SWITCHING}.get(seed % 20, NetworkType.IP_FABRIC)


def _has_prefixes(seed: int) -> bool:
    """Of each twentieth seed the VMs have whole prefixes."""
    return seed % 20 == 13


def replay(seed: int) -> str:
    """The command that does exactly this again."""
    return f"./vmfabric simulate --seed {seed}"


def run_seed(seed: int) -> Outcome:
    """Live through it."""
    loop = VirtualLoop()
    directory = Path(tempfile.mkdtemp(prefix=f"vmfabric-simulation-{seed}-", dir=_memory_directory()))
    try:
        with _collected_seldom():
            return loop.run_until_complete(_live(loop, seed, directory))
    finally:
        loop.close()
        shutil.rmtree(directory)


@contextmanager
def _collected_seldom() -> Iterator[None]:
    """A world is made of what refers to one another, and is dropped as a whole."""
    before = gc.get_threshold()
    gc.set_threshold(_COLLECTED_AT, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


async def _live(loop: VirtualLoop, seed: int, directory: Path) -> Outcome:
    world = World(loop, seed, directory)
    loop.set_exception_handler(lambda _loop, context: world.unexpected("nobody waited", context.get("exception")))
    with errors_watched(world.unexpected):
        try:
            await world.run()
        finally:
            await world.end()
    return world.outcome()


class World:
    """Everything, put together."""

    def __init__(self, loop: VirtualLoop, seed: int, directory: Path) -> None:
        self._loop = loop
        self._seed = seed
        self._random = Random(seed)  # noqa: S311  # the one source of chance
        self._story = Story(loop.time)
        self._faults = Faults(self._random)
        self._promises = Promises()
        self._ownership = Ownership(lambda pool: timedelta(seconds=self._ground.ipam.pools[pool].quarantine_seconds))
        self._violation: str | None = None
        self._is_wrong = asyncio.Event()
        self._is_over = False
        self._server = Server(loop, self._faults, self._story)
        self._server.on_kept = self._kept
        self._kind = _type_of(seed)
        count = self._random.randint(2, 3)
        self._nodes = {f"n{number}": self._node(number, directory) for number in range(1, count + 1)}
        self._ground = Ground(
            self._server,
            self._faults,
            VirtualClock(loop),
            plant(
                {name: node.address for name, node in self._nodes.items()},
                self._kind,
                cpu=self._random.choice(_CPUS),
                has_prefixes=_has_prefixes(seed),
            ),
            self._nodes,
            guarded=self.fail,
        )
        checker = Checker(
            plant=self._ground.plant, nodes=self._nodes, ipam=self._ground.ipam, tables=self._ground.tables,
            now=loop.wall, fail=self.fail, is_shaken=self._is_shaken,
        )  # fmt: skip
        self._checker = checker
        self._ground.scheduler_committed = checker.records
        self._ground.ipam_committed = checker.addresses
        for node in self._nodes.values():
            node.check = checker.data_plane
            node.carried_out = checker.carried_out
        self._hypervisor = Hypervisor(self._server, loop, self._random)
        self._supervisors = self._supervise()

    def fail(self, sentence: str) -> None:
        """Something is wrong; the first thing that is ends the seed."""
        if self._violation is None and not self._is_over:
            self._story.tell("WRONG: {0}", sentence)
            self._violation = sentence
            self._is_wrong.set()

    def _is_shaken(self) -> bool:
        """Whether something has happened that takes routes away whatever the services do."""
        return any(self._faults.counts[kind] for kind in SHAKING)

    def unexpected(self, where: str, error: BaseException | None) -> None:
        """A service has logged an error; only those that follow from a misfortune are expected."""
        strange = [leaf for leaf in leaves(error) if not isinstance(leaf, _EXPECTED)] if error else []
        if strange:
            self.fail(f"{where}: {strange[0]!r}")

    def outcome(self) -> Outcome:
        """When it is over."""
        return Outcome(
            seed=self._seed,
            violation=self._violation,
            story=self._story,
            faults=self._faults.counts,
            answers=self._promises.answers,
            failures=frozenset(self._promises.failures),
            is_calm=self._faults.is_calm,
        )

    async def run(self) -> None:
        """Until it is over, or something is wrong."""
        script = asyncio.create_task(self._script())
        wrong = asyncio.create_task(self._is_wrong.wait())
        await asyncio.wait({script, wrong}, return_when=asyncio.FIRST_COMPLETED)
        if script.done():
            await script

    async def end(self) -> None:
        """Nothing that happens from here on counts."""
        self._is_over = True
        self._faults.is_on = False
        for supervisor in self._supervisors.values():
            supervisor.on_death = lambda _process: None
            for process in supervisor.lives:
                self._loop.bury(process)
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _script(self) -> None:
        for supervisor in self._supervisors.values():
            supervisor.start()
        await self._until_joined()
        asked = workload(self._random, CLUSTER, len(self._nodes))
        self._faults.is_on = not self._faults.is_calm
        begin = self._loop.now
        for request in asked:
            self._loop.outside(request.at, self._ask, request)
        for kind, after in self._misfortunes():
            self._loop.outside(after, self._strike, kind)
        await asyncio.sleep(begin + _WORK_SECONDS - self._loop.now)
        self._faults.is_on = False
        self._story.tell("from here on nothing goes wrong any more")
        await asyncio.sleep(_PEACE_SECONDS)
        await self._settle()
        await self._be_quiet()

    async def _until_joined(self) -> None:
        while any(row.heard.state is not NodeState.JOINED for row in self._ground.tables.nodes.values()) or not (
            self._ground.tables.nodes and self._ground.ipam.pools
        ):
            await asyncio.sleep(0.5)

    async def _settle(self) -> None:
        deadline = self._loop.now + _SETTLE_SECONDS
        while left := [*unsettled(self._ground, self._promises), *self._still_moving()]:
            if self._loop.now > deadline:
                self.fail("; ".join(left))
            await asyncio.sleep(5.0)
        for sentence in self._promises.late():
            self.fail(sentence)

    def _still_moving(self) -> Iterator[str]:
        if self._hypervisor.copying:
            yield f"{self._hypervisor.copying} guests are still to arrive somewhere"

    async def _be_quiet(self) -> None:
        before = self._writes()
        await asyncio.sleep(next(seconds for every, seconds in _QUIET_SECONDS.items() if self._seed % every == 0))
        after = self._writes()
        if before != after:
            self.fail(f"with nothing to do there were writes: before {before}, after {after}")

    def _writes(self) -> dict[str, int]:
        kernels = {f"kernel of {name}": node.kernel.writes for name, node in self._nodes.items()}
        frrs = {f"FRR of {name}": node.frr.configured for name, node in self._nodes.items()}
        return {"bus": self._server.writes, **kernels, **frrs}

    def _node(self, number: int, directory: Path) -> Node:
        name = f"n{number}"
        return Node(
            name,
            IPv4Address(f"192.0.2.{number}"),
            self._kind,
            reflectors=REFLECTORS,
            directory=directory / name,
            loop=self._loop,
            faults=self._faults,
            story=self._story,
        )

    def _supervise(self) -> dict[str, Supervisor]:
        composed = {
            "scheduler": partial(services.scheduler, self._ground),
            "ipam": partial(services.ipam, self._ground),
        }
        for name, node in self._nodes.items():
            composed[f"node-agent.{name}"] = partial(services.node_agent, self._ground, node)
            if self._kind.is_announced:
                composed[f"bgp-announcer.{name}"] = partial(services.bgp_announcer, self._ground, node)
        found = {}
        for name, compose in composed.items():
            supervisor = Supervisor(name, compose, self._loop, self._faults, self._story)
            supervisor.on_death = self._died
            supervisor.ended_by_itself = self._ended
            found[name] = supervisor
        return found

    def _died(self, process: Process) -> None:
        self._ground.clients[process.name].drop()

    def _ended(self, name: str, error: BaseException | None) -> None:
        if not self._is_over:
            self.fail(f"{name} ended by itself: {list(leaves(error)) if error else 'without an error'}")

    def _ask(self, asked: Asked) -> None:
        kept = self._server.keep(asked.subject, asked.body, {})
        if kept is None:
            self._loop.outside(0.5, self._ask, asked)
        else:
            self._promises.ask(self._loop.now, asked.vm, asked.kind, kept[1])

    def _kept(self, stream: str, kept: Kept) -> None:
        body = kept.body.decode() if kept.body else "purged"
        self._story.tell("{0} {1} keeps {2}: {3}", stream, kept.sequence, kept.subject, _Normal(body))
        self._checker.kept(kept)
        if stream == "FACTS":
            self._hear(kept)
            self._hypervisor.kept(kept)
            self._promises.heard(self._loop.now, kept)

    def _hear(self, kept: Kept) -> None:
        event = read(kept.subject, kept.body)
        for sentence in self._ownership.hear(event, said_at(kept.headers, kept.at)) if event is not None else ():
            self.fail(f"history: {sentence}")

    def _misfortunes(self) -> Iterator[tuple[Fault, float]]:
        if self._faults.is_calm:
            return
        most = dict.fromkeys(EVENTS, 1) | {Fault.CRASH: 4, Fault.CUT: 3, Fault.DRIFT: 3}
        for kind in EVENTS:
            rare = kind in _RARE and self._random.random() < 0.8
            for _ in range(0 if rare else self._random.randint(0, most[kind])):
                yield kind, self._random.uniform(0.0, _WORK_SECONDS - 3.0)

    def _strike(self, kind: Fault) -> None:
        self._faults.happens(kind)
        node = self._nodes[self._random.choice(sorted(self._nodes))]
        name = self._random.choice(sorted(self._supervisors))
        match kind:
            case Fault.CRASH:
                self._supervisors[name].kill("by kill -9")
            case Fault.REBOOT:
                for supervisor in self._of(node):
                    supervisor.kill("with its node")
                node.reboot()
            case Fault.NODE_LOST | Fault.NODE_UNHEARD:
                self._lose(node, is_dead=kind is Fault.NODE_LOST)
            case Fault.CUT:
                self._story.tell("{0} loses its connection", name)
                self._ground.clients[name].cut(self._faults.between(0.5, 8.0))
            case Fault.DRIFT:
                node.drift()
            case Fault.FRR_DEAF | Fault.FRR_RESTART | Fault.SESSION_DOWN:
                self._strike_frr(kind, node)
            case Fault.BUS_EMPTIED:
                self._empty_bus()
            case Fault.DRAIN:
                self._drain(node)
            case _:
                raise ValueError(f"{kind} is no event of its own")

    def _strike_frr(self, kind: Fault, node: Node) -> None:
        match kind:
            case Fault.FRR_DEAF:
                node.deafen_frr()
            case Fault.FRR_RESTART:
                node.restart_frr()
            case _:
                node.lose_session(self._random.choice(REFLECTORS))

    def _of(self, node: Node) -> list[Supervisor]:
        names = (f"{service}.{node.name}" for service in ("node-agent", "bgp-announcer"))
        return [self._supervisors[name] for name in names if name in self._supervisors]

    def _lose(self, node: Node, *, is_dead: bool) -> None:
        for supervisor in self._of(node):
            supervisor.hold("with its node" if is_dead else "for long")
            self._loop.outside(_LOST_SECONDS, supervisor.release)
        if is_dead:
            node.reboot()
        self._loop.outside(self._faults.between(0.0, _FENCED_SECONDS), self._fence, node)

    def _drain(self, node: Node) -> None:
        going_down, parallel = self._random.random() < 0.5, self._random.randint(1, 4)
        self._story.tell("operators want {0} to be empty", node.name)
        self._ground.drains[node.name] = DrainNode(
            cluster=CLUSTER, node=node.name, going_down=going_down, parallel=parallel
        )
        self._loop.outside(self._faults.between(*_DRAINED_SECONDS), self._ground.drains.pop, node.name, None)

    def _fence(self, node: Node) -> None:
        event = NodeFenced(cluster=CLUSTER, node=node.name, fence=FENCE)
        if self._server.keep(event.subject(), event.model_dump_json().encode(), {}) is None:
            self._loop.outside(0.5, self._fence, node)

    def _empty_bus(self) -> None:
        self._story.tell("the bus loses everything")
        requests = self._server.streams[REQUEST_STREAM.name]
        consumers = requests.consumers.values()
        unserved = [consumer.unacknowledged() for consumer in consumers] or [frozenset(requests.kept)]
        self._promises.lose(frozenset().union(*unserved))
        self._server.empty()
        self._ownership.forget(self._server.loop.wall())
        for client in self._ground.clients.values():
            client.cut(self._faults.between(0.1, 1.0))


@dataclass(frozen=True, slots=True)
class _Normal:
    """A body as it is told: the ids of traces differ from run to run."""

    body: str

    def __format__(self, _spec: str) -> str:
        before, mark, after = self.body.partition('"trace_id":"')
        return f"{before}{mark}…{after[32:]}" if mark else before


def _memory_directory() -> str | None:
    """Where a file is only memory, if there is such a place: the snapshots of nodes are synchronised to the disk."""
    return next((path for path in ("/dev/shm",) if Path(path).is_dir()), None)
