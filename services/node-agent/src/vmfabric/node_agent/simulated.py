"""A kernel in memory behind the same port, for tests and the simulation. It has the kernel's side effects: routes and
IPv6 addresses go when a link goes down, a chain may outlive its device, a name is taken only once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

from vmfabric.contract.addresses import HostAddress, Mac, Prefix
from vmfabric.contract.names import InterfaceName, VmName
from vmfabric.node_agent.domain import bridge_operations as bridges
from vmfabric.node_agent.domain import held
from vmfabric.node_agent.domain import operations as do
from vmfabric.node_agent.domain.actual import (
    NOWHERE,
    Actual,
    BridgeSettings,
    Held,
    HostRoute,
    Interest,
    InterfaceAddress,
    Link,
    LinkKind,
    PortVlan,
    Proxy,
    VlanFiltering,
)
from vmfabric.node_agent.domain.antispoof import GuardState, Ruleset
from vmfabric.node_agent.domain.link_guard import Hook
from vmfabric.node_agent.domain.neighbour import Question
from vmfabric.node_agent.domain.port import LINK_GROUP, SYSCTLS
from vmfabric.node_agent.domain.setup import FORWARDING
from vmfabric.node_agent.simulated_held import RefusedError, moved
from vmfabric.node_agent.simulated_vlans import with_vlans


def an_uplink(address: InterfaceAddress) -> Link:
    """The link through which a node reaches the others."""
    return Link(
        index=1,
        name="uplink",
        kind=None,
        alias=None,
        alternative_names=frozenset(),
        group=0,
        mac="02:00:00:00:00:fe",
        mtu=1500,
        up=True,
        carrier=True,
        addresses=frozenset({address}),
        sysctls={},
    )


__all__ = ["RefusedError", "SimulatedKernel", "an_uplink"]


@dataclass
class SimulatedKernel:
    """One node's kernel. Its fields may be changed from outside: that is drift."""

    links: dict[str, Link] = field(default_factory=dict)
    uplinks: dict[str, Link] = field(default_factory=dict)
    """The node's own links."""
    routes: set[HostRoute] = field(default_factory=set)
    sysctls: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FORWARDING, 0))
    table: bool = False
    guards: dict[str, GuardState] = field(default_factory=dict)
    proxies: set[Proxy] = field(default_factory=set)
    holdings: dict[str, Held] = field(default_factory=dict)
    """What links of the node's own have."""
    link_guards: dict[str, frozenset[tuple[Hook, str]]] = field(default_factory=dict)
    answering: set[HostAddress] = field(default_factory=set)
    """Neighbours."""
    can_filter_vlans: bool = True
    writes: int = 0
    """Operations that were carried out."""
    _next_index: int = 100

    async def read(self, interest: Interest) -> Actual:  # noqa: ARG002  # all of it is at hand
        """What is there now."""
        return self.actual()

    async def ask(self, interface: InterfaceName, question: Question, seconds: float) -> bool:  # noqa: ARG002
        """Whether the neighbour is among those that answer, and the NIC is in the bridge."""
        is_reached = any(link.master == interface for link in self.uplinks.values())
        return is_reached and question.target in self.answering

    async def apply(self, operations: Sequence[do.Operation]) -> tuple[do.Failure, ...]:
        """Do them in this order. One that is refused stops its VM and no other."""
        failures: list[do.Failure] = []
        stopped: set[VmName] = set()
        for operation in operations:
            if operation.vm is not None and operation.vm in stopped:
                continue
            try:
                self.carry_out(operation)
            except RefusedError as error:
                failures.append(do.Failure(operation, str(error)))
                if operation.vm is not None:
                    stopped.add(operation.vm)
        return tuple(failures)

    def actual(self) -> Actual:
        """What is there now."""
        return Actual(
            links=self.uplinks | self.links,
            routes=frozenset(self.routes),
            sysctls=dict(self.sysctls),
            ruleset=Ruleset(self.table, dict(self.guards)),
            proxies=frozenset(self.proxies),
            held=dict(self.holdings),
            link_guards=dict(self.link_guards),
        )

    def carry_out(self, operation: do.Operation) -> None:  # noqa: C901, PLR0912  # one case for each kind
        """RefusedError when a kernel would refuse it."""
        match operation:
            case do.SetNodeSysctl(name=name, value=value):
                self.sysctls[name] = value
            case do.LoadTable() | do.LoadGuard() | do.RemoveGuard():
                self._guard(operation)
            case do.RemoveRoute(interface=interface, prefix=prefix, metric=metric):
                self._remove_route(prefix, interface, metric)
            case do.AddRoute():
                self._add_route(operation)
            case do.CreateLink():
                self._create(operation)
            case do.DeleteLink(index=index):
                self.delete_link(self._name(index))
            case do.SetDown(index=index):
                self.set_down(self._name(index))
            case do.RenameLink(interface=interface, index=index):
                self.rename_link(self._name(index), interface)
            case bridges.CreateBridge() | bridges.SetBridge() | bridges.SetMaster() | bridges.SetIsolated():
                self._bridge(operation)
            case bridges.SetVlanFiltering() | bridges.JoinVlan() | bridges.LeaveVlans():
                after = with_vlans(self._link(operation.interface), operation)
                self._change(after.name, vlans=after.vlans, filtering=after.filtering)
            case bridges.LoadLinkGuard() | bridges.RemoveLinkGuard() | bridges.AddProxy() | bridges.RemoveProxy():
                self._on_uplink(operation)
            case held.PutAddress() | held.TakeAddress() | held.PutRoute() | held.TakeRoute():
                self._move(operation)
            case do.SetUp(interface=interface):
                self._change(interface, up=True)
            case do.SetAlias(interface=interface, alias=alias):
                self._change(interface, alias=alias)
            case do.AddAlternativeName(interface=interface, name=name):
                self._change(interface, alternative_names=self._link(interface).alternative_names | {name})
            case do.SetMac(interface=interface, mac=mac):
                self._change(interface, mac=mac)
            case do.SetMtu(interface=interface, mtu=mtu):
                self._change(interface, mtu=mtu)
            case do.SetSysctl(interface=interface, name=name, value=value):
                self._change(interface, sysctls={**self._link(interface).sysctls, name: value})
            case do.AddAddress(interface=interface, address=address):
                self._change(interface, addresses=self._link(interface).addresses | {address})
            case do.RemoveAddress(interface=interface, address=address):
                self._change(interface, addresses=self._link(interface).addresses - {address})
            case _:
                assert_never(operation)
        self.writes += 1

    def delete_link(self, interface: str) -> None:
        """With its routes. Its chain stays, as newer kernels have it."""
        self._link(interface)
        self.set_down(interface)
        del self.links[interface]
        self.holdings.pop(interface, None)
        self.proxies = {it for it in self.proxies if it.interface != interface}
        for port in [it for it in (*self.links.values(), *self.uplinks.values()) if it.master == interface]:
            self._change(port.name, master=None, isolated=False)

    def rename_link(self, old: str, new: str) -> None:
        """With its routes, if it is up."""
        if new in self.links:
            raise RefusedError(f"{new} exists")
        self.links[new] = replace(self._link(old), name=new)
        del self.links[old]
        self.routes = {replace(it, interface=new) if it.interface == old else it for it in self.routes}

    def set_down(self, interface: str) -> None:
        """With its routes and IPv6 addresses."""
        kept = frozenset(address for address in self._link(interface).addresses if address.version == 4)
        self._change(interface, up=False, addresses=kept)
        stays = tuple(it for it in self.holdings.get(interface, Held()).addresses if it.address.version == 4)
        self.holdings[interface] = Held(stays, ())
        self.routes = {route for route in self.routes if route.interface != interface}

    def _create(self, wanted: do.CreateLink) -> None:
        self._add(wanted.interface, wanted.kind, wanted.mac, wanted.mtu, dict.fromkeys(SYSCTLS, 0))

    def _create_bridge(self, wanted: bridges.CreateBridge) -> None:
        self._add(wanted.interface, LinkKind.BRIDGE, wanted.mac, 1500, {})
        filtering = VlanFiltering(is_on=False, untagged=1) if self.can_filter_vlans else None
        self._change(wanted.interface, bridge=BridgeSettings(stp=0, forward_delay=1500), filtering=filtering)

    def _add(self, name: str, kind: LinkKind, mac: Mac, mtu: int, sysctls: dict[str, int]) -> None:
        if name in self.links:
            raise RefusedError(f"{name} exists")
        self._next_index += 1
        self.links[name] = Link(
            index=self._next_index,
            name=name,
            kind=kind.value,
            alias=None,
            alternative_names=frozenset(),
            group=LINK_GROUP,
            mac=mac,
            mtu=mtu,
            up=False,
            carrier=True,
            addresses=frozenset(),
            sysctls=sysctls,
        )

    def _guard(self, operation: do.GuardOperation) -> None:
        match operation:
            case do.LoadTable():
                self.table = True
            case do.LoadGuard(interface=interface, guard=guard):
                self._link(interface)
                if not self.table:
                    raise RefusedError("the table does not exist")
                self.guards[interface] = guard.loaded()
            case do.RemoveGuard(interface=interface):
                if self.guards.pop(interface, None) is None:
                    raise RefusedError(f"there is no chain for {interface}")
            case _:
                assert_never(operation)

    def _bridge(self, operation: bridges.BridgeOperation) -> None:
        match operation:
            case bridges.CreateBridge():
                self._create_bridge(operation)
            case bridges.SetBridge(interface=interface, settings=settings):
                self._change(interface, bridge=settings)
            case bridges.SetMaster(interface=interface, bridge=bridge):
                self._set_master(interface, bridge)
            case bridges.SetIsolated(interface=interface, isolated=isolated):
                if self._link(interface).master is None:
                    raise RefusedError(f"{interface} is no port of a bridge")
                self._change(interface, isolated=isolated)
            case _:
                assert_never(operation)

    def _on_uplink(self, operation: bridges.UplinkOperation) -> None:
        self._link(operation.interface)
        match operation:
            case bridges.LoadLinkGuard(interface=interface, guard=guard):
                self.link_guards[interface] = guard.marks
            case bridges.RemoveLinkGuard(interface=interface):
                del self.link_guards[interface]
            case bridges.AddProxy(interface=interface, address=address):
                self.proxies.add(Proxy(address, interface))
            case bridges.RemoveProxy(interface=interface, address=address):
                if Proxy(address, interface) not in self.proxies:
                    raise RefusedError(f"{address} is not answered for")
                self.proxies.remove(Proxy(address, interface))
            case _:
                assert_never(operation)

    def _set_master(self, interface: str, bridge: str | None) -> None:
        if bridge is not None and self._link(bridge).kind != LinkKind.BRIDGE:
            raise RefusedError(f"{bridge} is no bridge")
        filtering = None if bridge is None else self._link(bridge).filtering
        vlans = frozenset({PortVlan(filtering.untagged, True, True)} if filtering else ())
        self._change(interface, master=bridge, isolated=False, vlans=vlans)

    def _move(self, operation: held.MoveOperation) -> None:
        if not self._link(operation.interface).up and isinstance(operation, held.PutRoute):
            raise RefusedError(f"{operation.interface} is down")
        self.holdings = moved(self.holdings, operation)

    def _add_route(self, wanted: do.AddRoute) -> None:
        if wanted.interface != NOWHERE and not self._link(wanted.interface).up:
            raise RefusedError(f"{wanted.interface} is down")
        if any(route.prefix == wanted.prefix and route.metric == wanted.metric for route in self.routes):
            raise RefusedError(f"a route to {wanted.prefix} exists")
        if wanted.gateway is not None and wanted.interface in self.links and not self._reaches(wanted):
            raise RefusedError(f"no route to {wanted.gateway}")
        self.routes.add(HostRoute(wanted.prefix, wanted.interface, wanted.metric, wanted.gateway))

    def _reaches(self, wanted: do.AddRoute) -> bool:
        """A next hop behind a link of ours has a route to that itself."""
        return any(
            wanted.gateway in route.prefix and route.gateway is None
            for route in self.routes
            if route.interface == wanted.interface
        )

    def _remove_route(self, prefix: Prefix, interface: str, metric: int) -> None:
        found = {it for it in self.routes if (it.prefix, it.interface, it.metric) == (prefix, interface, metric)}
        if not found:
            raise RefusedError(f"there is no route {prefix}")
        self.routes -= found

    def _name(self, index: int) -> str:
        for link in self.links.values():
            if link.index == index:
                return link.name
        raise RefusedError(f"there is no link {index}")

    def _link(self, interface: str) -> Link:
        link = self.links.get(interface) or self.uplinks.get(interface)
        if link is None:
            raise RefusedError(f"there is no link {interface}")
        return link

    def _change(self, interface: str, **values: Any) -> None:
        links = self.links if interface in self.links else self.uplinks
        links[interface] = replace(self._link(interface), **values)
