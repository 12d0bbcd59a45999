"""A node: its kernel, its FRR and its disk, which outlive the processes that work on them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from simulation.faults import Fault, Faults
from simulation.plant import BRIDGE, UPLINK
from simulation.process import Process
from simulation.story import Story
from simulation.virtual_time import VirtualLoop
from vmfabric.bgp_announcer.domain.lines import Line
from vmfabric.bgp_announcer.domain.plan import Change
from vmfabric.bgp_announcer.domain.routes import Found, Session
from vmfabric.bgp_announcer.ports import FrrError
from vmfabric.bgp_announcer.simulated import SimulatedFrr
from vmfabric.contract.addresses import Family, HostAddress, Prefix
from vmfabric.contract.cluster import NetworkType
from vmfabric.contract.errors import Code
from vmfabric.contract.explanation import ReflectedRoute
from vmfabric.contract.names import InterfaceName, NodeName
from vmfabric.node_agent.domain.actual import Actual, HostRoute, Interest, LinkKind
from vmfabric.node_agent.domain.neighbour import Question
from vmfabric.node_agent.domain.operations import Failure, Operation
from vmfabric.node_agent.ports import KernelUnreadableError
from vmfabric.node_agent.simulated import RefusedError, SimulatedKernel, an_uplink

_ZEBRA_LAG = 0.1


class WatchedKernel(SimulatedKernel):
    """Tells of every change."""

    def __init__(self, faults: Faults, changed: Callable[[Operation | None], None]) -> None:
        super().__init__()
        self._faults = faults
        self.changed = changed

    def carry_out(self, operation: Operation) -> None:
        """May be refused."""
        if self._faults.roll(Fault.KERNEL_REFUSES):
            raise RefusedError("the kernel is out of memory")
        super().carry_out(operation)
        self.changed(operation)

    def boot(self) -> None:
        """Nothing is there any more."""
        fresh = SimulatedKernel()
        self.links, self.routes, self.sysctls = fresh.links, fresh.routes, fresh.sysctls
        self.table, self.guards = fresh.table, fresh.guards
        self.proxies, self.holdings, self.link_guards = fresh.proxies, fresh.holdings, fresh.link_guards
        self.changed(None)


class Node:
    """One hypervisor."""

    def __init__(
        self,
        name: NodeName,
        address: IPv4Address,
        kind: NetworkType,
        *,
        reflectors: Sequence[HostAddress],
        directory: Path,
        loop: VirtualLoop,
        faults: Faults,
        story: Story,
    ) -> None:
        self.name = name
        self.address = address
        self.directory = directory
        self.kernel = WatchedKernel(faults, self._kernel_changed)
        uplink = an_uplink(IPv4Interface(f"{address}/24"))
        self.kernel.uplinks = {UPLINK: uplink}
        if kind is NetworkType.SWITCHING:
            bridge = replace(uplink, index=2, name=BRIDGE, kind=LinkKind.BRIDGE.value)
            self.kernel.uplinks = {UPLINK: replace(uplink, master=BRIDGE, addresses=frozenset()), BRIDGE: bridge}
        self.frr = SimulatedFrr(lambda: self.seen_by_frr)
        self.frr.up = set(reflectors)
        self.seen_by_frr: Mapping[Prefix, int] = {}
        self.announced: Mapping[Prefix, frozenset[HostAddress]] = {}
        """What reflectors hear from here."""
        self.check: Callable[[], None] = lambda: None
        self.carried_out: Callable[[NodeName, Operation], None] = lambda _node, _operation: None
        self.watch: Callable[[], None] = lambda: None
        """Whoever listens to the kernel's own messages."""
        self._reflectors = tuple(reflectors)
        self._loop = loop
        self._faults = faults
        self._story = story
        self._zebra_is_told = False

    def leads(self, prefix: Prefix) -> HostRoute | None:
        """Where the kernel sends a packet for it."""
        routes = [route for route in self.kernel.routes if route.prefix == prefix]
        return min(routes, key=lambda route: route.metric, default=None)

    def reboot(self) -> None:
        """Kernel and FRR start with nothing; the disk stays. Its processes are killed elsewhere."""
        self._story.tell("node {0} reboots", self.name)
        self.kernel.boot()
        self.seen_by_frr = {}
        self.restart_frr()

    def restart_frr(self) -> None:
        """It has lost its configuration, and its sessions come back one by one."""
        self._story.tell("FRR of {0} restarts", self.name)
        self.frr.restart()
        for reflector in self._reflectors:
            self.lose_session(reflector)

    def deafen_frr(self) -> None:
        """zebra has started again, and bgpd has not noticed."""
        self._story.tell("bgpd of {0} does not hear zebra any more", self.name)
        self.frr.deafen()

    def lose_session(self, reflector: HostAddress) -> None:
        """For some seconds."""
        self._story.tell("the session of {0} with {1} goes down", self.name, reflector)
        self.frr.up.discard(reflector)
        self.frr_changed()
        self._loop.outside(self._faults.between(1.0, 6.0), self._establish, reflector)

    def drift(self) -> None:
        """Somebody deletes something of ours."""
        kernel, pick = self.kernel, self._faults.random
        names = sorted(kernel.links)
        what = pick.choice(("link", "route", "guard", "down", "mtu")) if names else "table"
        name = pick.choice(names) if names else "-"
        self._story.tell("somebody on {0} changes {1} of {2}", self.name, what, name)
        match what:
            case "link":
                kernel.delete_link(name)
            case "route":
                kernel.routes = {route for route in kernel.routes if route.interface != name}
            case "guard":
                kernel.guards.pop(name, None)
            case "down":
                kernel.set_down(name)
            case "mtu":
                kernel.links[name] = replace(kernel.links[name], mtu=1300)
            case _:
                kernel.table = False
        self._kernel_changed(None)

    def frr_changed(self) -> None:
        """Its configuration, its sessions or what it knows of the kernel."""
        self.announced = self.frr.announced()
        self.check()

    def _establish(self, reflector: HostAddress) -> None:
        self.frr.up.add(reflector)
        self.frr_changed()

    def _kernel_changed(self, operation: Operation | None) -> None:
        if operation is not None:
            self._story.tell("kernel of {0}: {1}: {2}", self.name, operation.vm or "node", operation)
            self.carried_out(self.name, operation)
        self.check()
        if not self._zebra_is_told:
            self._zebra_is_told = True
            self._loop.outside(self._faults.between(0.001, _ZEBRA_LAG), self._zebra_hears)

    def _zebra_hears(self) -> None:
        self._zebra_is_told = False
        self.seen_by_frr = {
            route.prefix: route.metric for route in sorted(self.kernel.routes, key=lambda it: it.metric, reverse=True)
        }
        self.frr_changed()
        self.watch()


class NodeKernel:
    """The kernel as one life of the node-agent reaches it."""

    def __init__(self, node: Node, process: Process, faults: Faults) -> None:
        self._node = node
        self._process = process
        self._faults = faults

    async def read(self, interest: Interest) -> Actual:  # noqa: ARG002  # all of it is at hand
        """It may fail; it is never empty by mistake."""
        await self._process.point()
        if self._faults.roll(Fault.KERNEL_UNREADABLE):
            raise KernelUnreadableError("the dump was interrupted")
        return self._node.kernel.actual()

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure, ...]:
        """The process may die in the middle."""
        await self._process.point()
        if self._faults.roll(Fault.CRASH_IN_KERNEL):
            await self._node.kernel.apply(operations[: self._faults.random.randrange(len(operations) + 1)])
            await self._process.die("amid operations of the kernel")
        return await self._node.kernel.apply(operations)

    async def ask(self, interface: InterfaceName, question: Question, seconds: float) -> bool:
        """Of a node that makes its bridge itself, of which there is none here."""
        return await self._node.kernel.ask(interface, question, seconds)


class NodeFrr:
    """FRR as one life of the bgp-announcer reaches it."""

    def __init__(self, node: Node, process: Process, faults: Faults) -> None:
        self._node = node
        self._process = process
        self._faults = faults

    async def running(self) -> tuple[Line, ...]:
        await self._ask()
        return await self._node.frr.running()

    async def configure(self, changes: Sequence[Change]) -> None:
        await self._ask()
        if self._faults.roll(Fault.CRASH_IN_FRR):
            await self._node.frr.configure(changes[: self._faults.random.randrange(len(changes) + 1)])
            self._node.frr_changed()
            await self._process.die("amid lines of configuration")
        await self._node.frr.configure(changes)
        self._node.frr_changed()

    async def routes(self, prefixes: Sequence[Prefix]) -> Found:
        await self._ask()
        return await self._node.frr.routes(prefixes)

    async def metric(self, prefix: Prefix) -> int | None:
        await self._ask()
        return await self._node.frr.metric(prefix)

    async def selected(self, prefix: Prefix) -> str:
        await self._ask()
        return await self._node.frr.selected(prefix)

    async def received(self, reflector: HostAddress, family: Family) -> Sequence[ReflectedRoute]:
        await self._ask()
        return await self._node.frr.received(reflector, family)

    async def sessions(self) -> Mapping[HostAddress, Session]:
        await self._ask()
        return await self._node.frr.sessions()

    async def _ask(self) -> None:
        await self._process.point()
        if self._faults.roll(Fault.FRR_SILENT):
            raise FrrError(Code.INTERNAL, "vtysh does not answer")
