"""What must be true at every instant, seen from outside: in stores, kernels and FRRs, after each change."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from simulation import claims
from simulation.bus_server import Kept
from simulation.nodes import Node
from simulation.plant import BRIDGE, Plant
from vmfabric.contract.addresses import HostAddress, Prefix, named_by
from vmfabric.contract.admin import VmPhase
from vmfabric.contract.cluster import NetworkType
from vmfabric.contract.dataplane import EVACUATED_LOCAL_PREFERENCE, LOCAL_PREFERENCE, SUBNET_METRIC
from vmfabric.contract.desired import BUCKET, VM_KEY, DesiredVm, Presence
from vmfabric.contract.names import NodeName, ResourceName, VmName
from vmfabric.ipam.domain.changes import Holding
from vmfabric.ipam.domain.lease import State
from vmfabric.ipam.memory_store import InMemoryStore
from vmfabric.node_agent.domain.actual import NOWHERE
from vmfabric.node_agent.domain.operations import DeleteLink, Operation, RemoveRoute, RetireRoute, SetDown
from vmfabric.runtime.desired import KEY_SUBJECT
from vmfabric.scheduler.domain.changes import LeftKey
from vmfabric.scheduler.domain.record import LeftBehind, VmKey
from vmfabric.scheduler.memory_store import Tables

_MAY_BECOME = {
    Presence.PREPARED: {Presence.PREFERRED, Presence.ROUTED, Presence.ABSENT},
    Presence.WIRED: {Presence.ABSENT},
    Presence.PREFERRED: {Presence.ROUTED, Presence.EVACUATED, Presence.ABSENT},
    Presence.EVACUATED: {Presence.ROUTED, Presence.FORWARDED, Presence.WIRED, Presence.ABSENT},
    Presence.ROUTED: {Presence.FORWARDED, Presence.WIRED, Presence.ABSENT},
    Presence.FORWARDED: {Presence.ABSENT},
    Presence.ABSENT: set(),
}
"""What the desired state of one generation on one node may say next."""
_SERVED_AT_HOME = {
    VmPhase.READY,
    VmPhase.PREPARING,
    VmPhase.MOVING,
    VmPhase.RETURNING,
    VmPhase.LEAVING,
    VmPhase.SETTLING,
}
"""The phases in which the core's best path leads to the VM's own node."""


@dataclass(frozen=True, slots=True)
class _Owner:
    vm: VmName
    generation: int


class Checker:
    """Calls `fail` with a sentence as soon as an invariant does not hold."""

    def __init__(
        self,
        *,
        plant: Plant,
        nodes: Mapping[NodeName, Node],
        ipam: InMemoryStore,
        tables: Tables,
        now: Callable[[], datetime],
        fail: Callable[[str], None],
        is_shaken: Callable[[], bool],
    ) -> None:
        self._plant = plant
        self._nodes = nodes
        self._ipam = ipam
        self._tables = tables
        self._now = now
        self._fail = fail
        self._is_shaken = is_shaken
        self._owners: dict[HostAddress, _Owner] = {}
        self._last_held: dict[HostAddress, datetime] = {}
        """When an address was last owned in ipam, or seen in a kernel or an FRR."""
        self._seen_version = 0
        """Of the scheduler's tables."""
        self._generations: dict[int, VmName] = {}
        self._wanted: dict[str, tuple[int, Presence]] = {}

    def data_plane(self) -> None:
        """After a change in a kernel or an FRR, and after each commit of ipam."""
        self._check_announced(self._check_wired())
        if not self._is_shaken():
            self._is_served()

    def _check_wired(self) -> Mapping[HostAddress, str]:
        now = self._now()
        wired: dict[HostAddress, str] = {}
        for name, node in self._nodes.items():
            for address, interface in _wired(node):
                if self._is_left_behind(name, address):
                    continue
                self._last_held[address] = now
                if wired.setdefault(address, interface) != interface:
                    self._fail(f"{address} is wired twice: as {wired[address]} and as {interface}")
                self._is_held(address, name, f"wired on {name} as {interface}", interface)
            for address in _routed_into_bridge(node):
                if not self._is_left_behind(name, address):
                    self._last_held[address] = now
                    self._is_held(address, name, f"routed into the bridge of {name}", None)
        return wired

    @staticmethod
    def _goes_at_once(node: Node, prefix: Prefix, preference: int) -> bool:
        """What a node has announced from memory alone, preferred to nothing, and its kernel has no more."""
        return preference < LOCAL_PREFERENCE and all(route.prefix != prefix for route in node.kernel.routes)

    def _check_announced(self, wired: Mapping[HostAddress, str]) -> None:
        announced: dict[tuple[HostAddress, int], NodeName] = {}
        for name, node in self._nodes.items():
            for prefix in node.announced:
                address, preference = named_by(prefix), node.frr.local_preference(prefix)
                is_left_behind = self._is_left_behind(name, address)
                if is_left_behind and not self._is_evacuated(address):
                    continue
                other = announced.setdefault((address, preference), name)
                if other != name and not any(self._outranks_a_refuge(node, prefix) for node in (name, other)):
                    self._fail(f"{address} is announced by {other} and by {name}, both with preference {preference}")
                if is_left_behind or self._goes_at_once(node, prefix, preference):
                    continue
                self._last_held[address] = self._now()
                if address in wired or not self._rests(address):
                    # FRR hears of a route that is gone a little later; until then the address must rest.
                    self._is_held(address, name, f"announced by {name}", None)

    def _outranks_a_refuge(self, node: NodeName, prefix: Prefix) -> bool:
        """A node that was lost as a target or a refuge and goes on: there is no preference above its own."""
        preference = self._nodes[node].frr.local_preference(prefix)
        return preference >= EVACUATED_LOCAL_PREFERENCE and self._is_left_behind(node, named_by(prefix))

    def addresses(self) -> None:
        """After each commit of ipam."""
        self._check_owners()
        self._check_leases()
        self.data_plane()

    def records(self) -> None:
        """After each commit of the scheduler, which may make many VMs, or change nothing."""
        if self._seen_version == self._tables.version:
            return
        self._seen_version = self._tables.version
        found = {
            generation: vm
            for (_, vm), record in self._tables.vms.items()
            for generation in (record.generation, *([record.move.generation] if record.move else []))
        }
        highest = max(self._generations, default=0)
        for generation, vm in found.items():
            if self._generations.get(generation, vm) != vm:
                self._fail(f"{vm} has generation {generation}, which was given to {self._generations[generation]}")
            if generation not in self._generations and generation <= highest:
                self._fail(f"{vm} gets generation {generation}, though {highest} was given already")
        self._generations |= found
        for sentence in (*claims.broken(self._tables), *self._on_two_nodes()):
            self._fail(sentence)
        if not self._is_shaken():
            self._is_served()

    def carried_out(self, node: NodeName, operation: Operation) -> None:
        """After each operation of a node-agent: what is ready is repaired, never taken down."""
        if operation.vm is None or not isinstance(operation, (RemoveRoute, SetDown, DeleteLink)):
            return
        record = self._tables.vms.get(VmKey(self._plant.cluster.name, operation.vm))
        is_home = record is not None and record.node == node and record.phase in _SERVED_AT_HOME
        if record is not None and is_home and not isinstance(operation, RetireRoute):
            self._fail(f"{operation.vm} is {record.phase}, and the node-agent of {node} does: {operation}")

    def kept(self, kept: Kept) -> None:
        """After each message that a stream of the bus keeps: desired state goes forward only."""
        if not kept.subject.startswith(f"{KEY_SUBJECT}{VM_KEY.stem}.") or "KV-Operation" in kept.headers:
            return
        desired = DesiredVm.from_bytes(kept.body)
        generation, presence = self._wanted.get(kept.subject, (desired.generation, desired.presence))
        is_next = desired.presence is presence or desired.presence in _MAY_BECOME[presence]
        if desired.is_announced and presence is Presence.PREPARED:
            is_next = desired.presence in {presence, Presence.PREFERRED, Presence.ABSENT}
        if desired.generation < generation or (desired.generation == generation and not is_next):
            self._fail(
                f"bucket {BUCKET} goes back: {kept.subject} was generation {generation} {presence}, "
                f"is generation {desired.generation} {desired.presence}"
            )
        self._wanted[kept.subject] = (desired.generation, desired.presence)

    def _is_served(self) -> None:
        """The best of the core's paths to a VM leads to its own node, and there to its port."""
        for (_, vm), record in self._tables.vms.items():
            if record.phase not in {*_SERVED_AT_HOME, VmPhase.SWITCHING} or record.desired is None:
                continue
            if not self._plant.type.is_announced:
                # A target that was letting go is made anew, and until then the source serves.
                move = record.move if record.phase is VmPhase.SWITCHING else None
                serves = record.desired if move is None else move.desired
                for sentence in self._without_port(serves):
                    self._fail(f"{vm} is {record.phase}, but on {serves.node} {sentence}")
                continue
            for prefix in record.desired.prefixes():
                paths = [
                    (it.frr.local_preference(prefix), name)
                    for name, it in self._nodes.items()
                    if prefix in it.announced and not self._outranks_a_refuge(name, prefix)
                ]
                best = max(paths, default=(0, None))[1]
                if best is not None and record.phase is VmPhase.SWITCHING:
                    continue
                route = self._nodes[record.node].leads(prefix)
                if best != record.node or route is None or route.interface != self._plant.link_of(vm):
                    self._fail(
                        f"{vm} is {record.phase} on {record.node}, but the core's best path to {prefix} leads to "
                        f"{best}, and {record.node} sends it to {route and route.interface}"
                    )

    def _without_port(self, desired: DesiredVm) -> Iterator[str]:
        """What a VM that is not announced lacks on its node."""
        node, link = self._nodes[desired.node], self._plant.link_of(desired.vm)
        guard, port = node.kernel.guards.get(link), node.kernel.links.get(link)
        if guard is None or port is None or port.master != BRIDGE:
            yield f"{link} is no guarded port of {BRIDGE}"
            return
        for prefix in desired.prefixes():
            if named_by(prefix) not in guard.addresses:
                yield f"{prefix} is not let through"
            route = node.leads(prefix)
            if (route and route.interface) != self._plant.routed_to(desired.vm):
                yield f"{prefix} is sent to {route and route.interface}"

    def _on_two_nodes(self) -> Iterator[str]:
        """A guest that nothing announces is found by its port, so it has one on one node only."""
        for (_, vm), record in self._tables.vms.items():
            there = [it for it in record.all_desired() if not it.is_announced and it.presence.is_announced]
            if len(there) > 1:
                yield f"{vm} is wanted for good on {there[0].node} and on {there[1].node}"
            if self._plant.type is NetworkType.ROUTING and record.move is not None:
                yield f"{vm} moves to {record.move.target}, and its provider sends its addresses to {record.node}"

    def _is_left_behind(self, node: NodeName, address: HostAddress) -> bool:
        """Whether the node was lost with it: it may have it still, though another VM may have got it since."""
        return any(key.node == node and address in left.desired.addresses for key, left in self._left_behind())

    def _left_behind(self) -> Iterable[tuple[LeftKey, LeftBehind]]:
        return self._tables.left_behind.items()

    def _is_evacuated(self, address: HostAddress) -> bool:
        """Whether its VM is the one that was lost with the node, so that the paths must differ."""
        holding = self._ipam.written_holdings.get(address)
        record = self._tables.vms.get(VmKey(*holding.key)) if holding else None
        return record is not None and record.evacuated

    def _rests(self, address: HostAddress) -> bool:
        holding = self._ipam.written_holdings.get(address)
        return holding is not None and holding.rests_until is not None

    def _is_held(self, address: HostAddress, node: NodeName, how: str, interface: str | None) -> None:
        holding = self._ipam.written_holdings.get(address)
        if holding is None:
            self._fail(f"{address} is {how}, but free in ipam")
            return
        if holding.rests_until is not None:
            self._fail(f"{address} is {how}, but released in ipam, by {holding.key.vm}")
        record = self._tables.vms.get(VmKey(*holding.key))
        if node not in {holding.node, *(record.nodes() if record else ())}:
            self._fail(f"{address} is {how}, but in ipam it is {holding.key.vm}'s on {holding.node}")
        if interface is not None and interface != self._plant.link_of(holding.key.vm):
            self._fail(f"{address} is {how}, but in ipam it is {holding.key.vm}'s")

    def _check_owners(self) -> None:
        now = self._now()
        for address, holding in self._ipam.written_holdings.items():
            if holding.rests_until is not None:
                self._owners.pop(address, None)
                continue
            owner = _Owner(holding.key.vm, holding.generation)
            if self._owners.get(address) != owner:
                self._is_given(address, holding, now)
                self._owners[address] = owner
            self._last_held[address] = now
        for address in self._owners.keys() - self._ipam.written_holdings.keys():
            self._fail(f"{address} was {self._owners[address].vm}'s, and is free without having been released")

    def _is_given(self, address: HostAddress, holding: Holding, now: datetime) -> None:
        former = self._owners.get(address)
        if former is not None and former.vm != holding.key.vm:
            self._fail(f"{address} goes from {former.vm} to {holding.key.vm} without having been released")
        last = self._last_held.get(address)
        rest = timedelta(seconds=self._quarantine(holding.pool))
        if former is None and last is not None and now - last < rest:
            self._fail(
                f"{address} is given to {holding.key.vm} {(now - last).total_seconds():.3f} s after it was "
                f"last held; its pool's quarantine is {rest.total_seconds():.0f} s"
            )

    def _quarantine(self, pool: ResourceName) -> float:
        return self._ipam.pools[pool].quarantine_seconds

    def _check_leases(self) -> None:
        owners: dict[HostAddress, VmName] = {}
        for key, lease in self._ipam.written_leases.items():
            for each in lease.addresses if lease.state is not State.RELEASED else ():
                if owners.setdefault(each.address, key.vm) != key.vm:
                    self._fail(f"{each.address} is in the leases of {owners[each.address]} and {key.vm}")


def _wired(node: Node) -> Iterator[tuple[HostAddress, str]]:
    for interface, guard in node.kernel.guards.items():
        for address in sorted(guard.addresses, key=int):
            yield address, interface
    for route in node.kernel.routes:
        if route.gateway is None and route.interface not in {BRIDGE, NOWHERE}:
            yield route.prefix.network_address, route.interface


def _routed_into_bridge(node: Node) -> Iterator[HostAddress]:
    """Of single VMs; that of a whole subnet is the node's own."""
    for route in node.kernel.routes:
        if route.interface == BRIDGE and route.metric != SUBNET_METRIC:
            yield route.prefix.network_address
