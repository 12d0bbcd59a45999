"""What must be true at every instant, seen from outside: in stores, kernels and FRRs, after each change."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from simulation.bus_server import Kept
from simulation.nodes import Node
from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.admin import VmPhase
from vmfabric.contract.desired import BUCKET, VM_KEY, DesiredVm, Presence
from vmfabric.contract.names import ClusterName, NodeName, ResourceName, VmName
from vmfabric.ipam.domain.lease import State
from vmfabric.ipam.domain.leasing import Holding
from vmfabric.ipam.memory_store import InMemoryStore
from vmfabric.node_agent.domain.naming import interface_name
from vmfabric.node_agent.domain.operations import DeleteLink, Operation, RemoveRoute, SetDown
from vmfabric.runtime.desired import KEY_SUBJECT
from vmfabric.scheduler.domain.record import VmKey
from vmfabric.scheduler.memory_store import Tables

_STEPS_DOWN = (Presence.ROUTED, Presence.WIRED, Presence.ABSENT)


@dataclass(frozen=True, slots=True)
class _Owner:
    vm: VmName
    generation: int


class Checker:
    """Calls `fail` with a sentence as soon as an invariant does not hold."""

    def __init__(
        self,
        *,
        cluster: ClusterName,
        nodes: Mapping[NodeName, Node],
        ipam: InMemoryStore,
        tables: Tables,
        now: Callable[[], datetime],
        fail: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._ipam = ipam
        self._tables = tables
        self._now = now
        self._fail = fail
        self._owners: dict[HostAddress, _Owner] = {}
        self._last_held: dict[HostAddress, datetime] = {}
        """When an address was last owned in ipam, or seen in a kernel or an FRR."""
        self._highest_generation = 0
        self._generations: dict[VmName, int] = {}
        self._wanted: dict[str, tuple[int, int]] = {}

    def data_plane(self) -> None:
        """After a change in a kernel or an FRR, and after each commit of ipam."""
        now = self._now()
        wired: dict[HostAddress, tuple[NodeName, str]] = {}
        for name, node in self._nodes.items():
            for address, interface in _wired(node):
                self._last_held[address] = now
                known = wired.setdefault(address, (name, interface))
                if known != (name, interface):
                    self._fail(f"{address} is wired twice: {known} and {(name, interface)}")
                self._is_held(address, name, f"wired on {name} as {interface}", interface)
        announced: dict[HostAddress, NodeName] = {}
        for name, node in self._nodes.items():
            for prefix in node.announced:
                address = prefix.network_address
                self._last_held[address] = now
                if announced.setdefault(address, name) != name:
                    self._fail(f"{address} is announced by {announced[address]} and by {name}")
                if address in wired or not self._rests(address):
                    # FRR hears of a route that is gone a little later; until then the address must rest.
                    self._is_held(address, name, f"announced by {name}", None)

    def addresses(self) -> None:
        """After each commit of ipam."""
        self._check_owners()
        self._check_leases()
        self.data_plane()

    def records(self) -> None:
        """After each commit of the scheduler, which may make many VMs."""
        new = {
            vm: record.generation
            for (_, vm), record in self._tables.vms.items()
            if self._generations.get(vm) != record.generation
        }
        for vm, generation in new.items():
            if generation <= self._highest_generation:
                self._fail(f"{vm} gets generation {generation}, though {self._highest_generation} was given already")
        self._generations |= new
        self._highest_generation = max([self._highest_generation, *new.values()])

    def carried_out(self, node: NodeName, operation: Operation) -> None:
        """After each operation of a node-agent: what is ready is repaired, never taken down."""
        if operation.vm is None or not isinstance(operation, (RemoveRoute, SetDown, DeleteLink)):
            return
        record = self._tables.vms.get(VmKey(self._cluster, operation.vm))
        if record is not None and record.node == node and record.phase is VmPhase.READY:
            self._fail(f"{operation.vm} is ready, and the node-agent of {node} does: {operation}")

    def kept(self, kept: Kept) -> None:
        """After each message that a stream of the bus keeps: desired state goes forward only."""
        if not kept.subject.startswith(f"{KEY_SUBJECT}{VM_KEY.stem}.") or "KV-Operation" in kept.headers:
            return
        desired = DesiredVm.from_bytes(kept.body)
        now = (desired.generation, _STEPS_DOWN.index(desired.presence))
        before = self._wanted.get(kept.subject, now)
        if now < before:
            self._fail(
                f"bucket {BUCKET} goes back: {kept.subject} was generation {before[0]} {_STEPS_DOWN[before[1]]}, "
                f"is generation {now[0]} {desired.presence}"
            )
        self._wanted[kept.subject] = now

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
        if holding.node != node:
            self._fail(f"{address} is {how}, but in ipam it is {holding.key.vm}'s on {holding.node}")
        if interface is not None and interface != interface_name(self._cluster, holding.key.vm):
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
        addresses: Iterable[HostAddress] = (*guard.ipv4, *guard.ipv6)
        for address in addresses:
            yield address, interface
    for route in node.kernel.routes:
        yield route.prefix.network_address, route.interface
