"""A kernel in memory behind the same port, for tests and the simulation. It has the kernel's side effects: routes and
IPv6 addresses go when a link goes down, a chain may outlive its device, a name is taken only once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from vmfabric.contract.addresses import Prefix
from vmfabric.contract.names import VmName
from vmfabric.node_agent.domain import operations as do
from vmfabric.node_agent.domain.actual import Actual, HostRoute, InterfaceAddress, Link
from vmfabric.node_agent.domain.antispoof import GuardState, Ruleset
from vmfabric.node_agent.domain.port import LINK_GROUP, NODE_SYSCTLS, SYSCTLS


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


class RefusedError(Exception):
    """What the kernel would say no to."""


@dataclass
class SimulatedKernel:
    """One node's kernel. Its fields may be changed from outside: that is drift."""

    links: dict[str, Link] = field(default_factory=dict)
    uplinks: dict[str, Link] = field(default_factory=dict)
    """The node's own links."""
    routes: set[HostRoute] = field(default_factory=set)
    sysctls: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NODE_SYSCTLS, 0))
    table: bool = False
    guards: dict[str, GuardState] = field(default_factory=dict)
    writes: int = 0
    """Operations that were carried out."""
    _next_index: int = 100

    async def read(self) -> Actual:
        """What is there now."""
        return self.actual()

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
        )

    def carry_out(self, operation: do.Operation) -> None:  # noqa: C901, PLR0912  # one case for each kind
        """RefusedError when a kernel would refuse it."""
        match operation:
            case do.SetNodeSysctl(name=name, value=value):
                self.sysctls[name] = value
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
            case do.SetUp(interface=interface):
                self.links[interface] = replace(self._link(interface), up=True)
            case do.SetAlias(interface=interface, alias=alias):
                self.links[interface] = replace(self._link(interface), alias=alias)
            case do.AddAlternativeName(interface=interface, name=name):
                link = self._link(interface)
                self.links[interface] = replace(link, alternative_names=link.alternative_names | {name})
            case do.SetMac(interface=interface, mac=mac):
                self.links[interface] = replace(self._link(interface), mac=mac)
            case do.SetMtu(interface=interface, mtu=mtu):
                self.links[interface] = replace(self._link(interface), mtu=mtu)
            case do.SetSysctl(interface=interface, name=name, value=value):
                link = self._link(interface)
                self.links[interface] = replace(link, sysctls={**link.sysctls, name: value})
            case do.AddAddress(interface=interface, address=address):
                link = self._link(interface)
                self.links[interface] = replace(link, addresses=link.addresses | {address})
            case do.RemoveAddress(interface=interface, address=address):
                link = self._link(interface)
                self.links[interface] = replace(link, addresses=link.addresses - {address})
            case _:
                assert_never(operation)
        self.writes += 1

    def delete_link(self, interface: str) -> None:
        """With its routes. Its chain stays, as newer kernels have it."""
        self._link(interface)
        self.set_down(interface)
        del self.links[interface]

    def rename_link(self, old: str, new: str) -> None:
        """With its routes, if it is up."""
        if new in self.links:
            raise RefusedError(f"{new} exists")
        self.links[new] = replace(self._link(old), name=new)
        del self.links[old]
        self.routes = {replace(it, interface=new) if it.interface == old else it for it in self.routes}

    def set_down(self, interface: str) -> None:
        """With its routes and IPv6 addresses."""
        link = self._link(interface)
        kept = frozenset(address for address in link.addresses if address.version == 4)
        self.links[interface] = replace(link, up=False, addresses=kept)
        self.routes = {route for route in self.routes if route.interface != interface}

    def _create(self, wanted: do.CreateLink) -> None:
        if wanted.interface in self.links:
            raise RefusedError(f"{wanted.interface} exists")
        self._next_index += 1
        self.links[wanted.interface] = Link(
            index=self._next_index,
            name=wanted.interface,
            kind=wanted.kind.value,
            alias=None,
            alternative_names=frozenset(),
            group=LINK_GROUP,
            mac=wanted.mac,
            mtu=wanted.mtu,
            up=False,
            carrier=True,
            addresses=frozenset(),
            sysctls=dict.fromkeys(SYSCTLS, 0),
        )

    def _add_route(self, wanted: do.AddRoute) -> None:
        if not (self.uplinks.get(wanted.interface) or self._link(wanted.interface)).up:
            raise RefusedError(f"{wanted.interface} is down")
        if any(route.prefix == wanted.prefix and route.metric == wanted.metric for route in self.routes):
            raise RefusedError(f"a route to {wanted.prefix} exists")
        self.routes.add(HostRoute(wanted.prefix, wanted.interface, wanted.metric, wanted.gateway))

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
        link = self.links.get(interface)
        if link is None:
            raise RefusedError(f"there is no link {interface}")
        return link
