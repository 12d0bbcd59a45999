"""The difference between what should be and what is, as operations in the kernel's order."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from vmfabric.contract.addresses import Prefix
from vmfabric.contract.dataplane import SUBNET_METRICS
from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.contract.names import InterfaceName, VmName
from vmfabric.node_agent.domain import bridge_operations as bridges
from vmfabric.node_agent.domain import operations as do
from vmfabric.node_agent.domain import vlans
from vmfabric.node_agent.domain.actual import Actual, HostRoute, Link, LinkKind, Proxy
from vmfabric.node_agent.domain.antispoof import GuardState
from vmfabric.node_agent.domain.fabrics.fabric import Node, bridges_of, setup, trunk_of
from vmfabric.node_agent.domain.forwarding import remembered_routes, wanted_routes
from vmfabric.node_agent.domain.naming import ALIAS_PREFIX
from vmfabric.node_agent.domain.port import Port, port_of
from vmfabric.node_agent.domain.problems import Problem, is_taken, owners_of, problems_of
from vmfabric.node_agent.domain.setup import Setup
from vmfabric.node_agent.domain.setup_plan import node_operations, node_problems, proxy_operations


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, and what cannot be done."""

    operations: tuple[do.Operation, ...]
    problems: tuple[Problem, ...]
    orphans: tuple[str, ...]
    """Links of ours of which nothing is wanted. They are reported and left: absence is a word."""
    stray_routes: tuple[HostRoute, ...]
    """Routes with our protocol number that are no VM's. They are reported and left too."""


def plan(
    desired: Sequence[DesiredVm],
    actual: Actual,
    *,
    node: Node | None = None,
    remembered: Collection[VmName] = (),
    in_the_way: Iterable[str] = (),
) -> Plan:
    """What brings the kernel from `actual` to `desired`. Empty when it is there.

    Of the VMs that are only `remembered` nobody has said yet that they are still this node's. `in_the_way` is what
    is known already of the node's own setup.
    """
    ports = [port_of(vm) for vm in desired]
    wanted = setup(node, actual) if node or any(port.routed_to for port in ports) else Setup()
    of_node = [Problem(None, sentence) for sentence in (*in_the_way, *node_problems(wanted, actual))]
    joinable = _bridges(wanted, actual)
    problems = {problem.vm: problem for problem in problems_of(ports, actual, joinable)}
    interfaces = {port.interface for port in ports}
    routes = _Routes.of(actual, interfaces)
    owners = owners_of(ports)
    marked = {link.alias: link for link in actual.links.values() if link.alias is not None}
    of_vms = {prefix.network_address for port in ports for prefix in port.prefixes}
    uplink = trunk_of(node)
    todo: list[do.Operation] = [*node_operations(wanted, actual, of_vms)]
    todo.extend(vlans.bridge_operations(ports, actual, uplink))
    for port in ports:
        if port.vm not in problems:
            is_remembered = port.vm in remembered
            # What has become another VM's here is not taken away with this one.
            own = frozenset(it for it in port.prefixes if owners.get(it, port.vm) == port.vm)
            present = routes.concerning(port, own)
            todo.extend(_port(port, actual, present, marked.get(port.alias), uplink, is_remembered=is_remembered))
            todo.extend(_proxies(port, own, actual, wanted.answers_on))
        elif is_taken(port, actual):
            # A chain that outlived its device hangs on whatever has the name now, and lets nothing of it through.
            todo.extend(_removal(port, None, actual.ruleset.guards.get(port.interface)))
    return Plan(
        operations=tuple(sorted(todo, key=lambda operation: operation.stage)),
        problems=(*of_node, *problems.values()),
        orphans=tuple(sorted(_orphans(actual, interfaces | bridges_of(node, actual)))),
        stray_routes=_stray_routes(ports, actual),
    )


def _bridges(wanted: Setup, actual: Actual) -> frozenset[str]:
    """Those that a port can be put into, the one that is about to be made with them."""
    there = {link.name for link in actual.links.values() if link.kind == LinkKind.BRIDGE}
    return frozenset(there if wanted.bridge is None else there | {wanted.bridge.interface} - actual.links.keys())


def _proxies(
    port: Port, own: frozenset[Prefix], actual: Actual, answers_on: InterfaceName | None
) -> Iterator[do.Operation]:
    addresses = {prefix.network_address for prefix in own if prefix not in port.led_by}
    is_announced = port.presence.is_announced
    wanted = frozenset(Proxy(it, answers_on) for it in addresses if answers_on and is_announced)
    yield from proxy_operations(wanted, frozenset(it for it in actual.proxies if it.address in addresses), port.vm)


@dataclass(frozen=True, slots=True)
class _Routes:
    """The routes of ours by where they lead, and those that lead to no port by their prefix."""

    by_interface: Mapping[str, frozenset[HostRoute]]
    astray: Mapping[Prefix, frozenset[HostRoute]]

    @staticmethod
    def of(actual: Actual, interfaces: set[str]) -> "_Routes":
        by_interface: defaultdict[str, set[HostRoute]] = defaultdict(set)
        astray: defaultdict[Prefix, set[HostRoute]] = defaultdict(set)
        for route in _of_vms(actual):
            by_interface[route.interface].add(route)
            if route.interface and route.interface not in interfaces:
                astray[route.prefix].add(route)
        return _Routes(
            {interface: frozenset(routes) for interface, routes in by_interface.items()},
            {prefix: frozenset(routes) for prefix, routes in astray.items()},
        )

    def concerning(self, port: Port, own: frozenset[Prefix]) -> frozenset[HostRoute]:
        here = self.by_interface.get(port.interface, frozenset())
        return here.union(*(self.astray.get(prefix, frozenset()) for prefix in own))


def _orphans(actual: Actual, interfaces: set[str]) -> Iterator[str]:
    for link in actual.links.values():
        if link.name not in interfaces and link.alias is not None and link.alias.startswith(ALIAS_PREFIX):
            yield link.name


def _of_vms(actual: Actual) -> Iterator[HostRoute]:
    return (it for it in actual.routes if it.metric not in SUBNET_METRICS)


def _stray_routes(ports: Sequence[Port], actual: Actual) -> tuple[HostRoute, ...]:
    known = frozenset(prefix for port in ports for prefix in port.prefixes)
    interfaces = {port.interface for port in ports}
    strays = (it for it in _of_vms(actual) if it.prefix not in known and it.interface not in interfaces)
    return tuple(sorted(strays, key=str))


def _port(
    port: Port,
    actual: Actual,
    present: frozenset[HostRoute],
    marked: Link | None,
    uplink: InterfaceName | None,
    *,
    is_remembered: bool,
) -> Iterator[do.Operation]:
    """`marked` is a link with the port's alias: ours, whatever somebody has named it."""
    named = None if is_taken(port, actual) else actual.links.get(port.interface)
    link = named or marked
    found = actual.ruleset.guards.get(port.interface)
    unwanted = link is not None and link.kind != port.kind
    links = actual.links.values()
    wanted = remembered_routes(port, present) if is_remembered else wanted_routes(port, links)
    stays = port.presence is not Presence.ABSENT and named is not None and not unwanted
    yield from _surplus_routes(port, present, wanted, stays=stays)
    if port.presence is Presence.ABSENT:
        yield from _removal(port, link, found)
    elif link is None or unwanted:
        yield from _removal(port, link, None)
        yield from _creation(port, found)
        yield from vlans.port_operations(port, None, actual, uplink)
    else:
        if named is None:
            yield from _renaming(port, link)
            link = _once_renamed(link)
        yield from _repair(port, link)
        yield from vlans.port_operations(port, link, actual, uplink)
        if named is None or found is None or not found.is_as(port.guard):
            yield do.LoadGuard(port.vm, port.interface, port.guard, found)
        if not link.up:
            yield do.SetUp(port.vm, port.interface)
    # Those to a port that is made anew have gone with its link.
    standing = frozenset(route for route in present if stays or route.interface != port.interface)
    yield from _missing_routes(port, standing, wanted)


def _renaming(port: Port, link: Link) -> Iterator[do.Operation]:
    if link.up:
        yield do.SetDown(port.vm, port.interface, link.index)
    yield do.RenameLink(port.vm, port.interface, link.index)


def _once_renamed(link: Link) -> Link:
    """Going down has taken its IPv6 addresses and its routes."""
    return replace(link, up=False, addresses=frozenset(it for it in link.addresses if it.version == 4))


def _surplus_routes(
    port: Port, present: frozenset[HostRoute], wanted: frozenset[HostRoute], *, stays: bool
) -> Iterator[do.Operation]:
    # The kernel takes no second route of the same metric; where the metrics differ, the new one comes first.
    have = {(route.prefix, route.metric) for route in wanted}
    replaced = {route.prefix for route in wanted} if stays else frozenset()
    for route in sorted(present - wanted, key=str):
        can_wait = route.prefix in replaced and (route.prefix, route.metric) not in have
        remove = do.RetireRoute if can_wait else do.RemoveRoute
        yield remove(port.vm, route.interface, route.prefix, route.metric)


def _missing_routes(
    port: Port, present: frozenset[HostRoute], wanted: frozenset[HostRoute]
) -> Iterator[do.Operation]:
    # The kernel takes a route by a next hop only when it has one to that.
    for route in sorted(wanted - present, key=lambda it: (it.prefix in port.led_by, str(it))):
        yield do.AddRoute(port.vm, route.interface, route.prefix, route.metric, route.gateway)


def _removal(port: Port, link: Link | None, found: GuardState | None) -> Iterator[do.Operation]:
    if link is not None and link.up:
        yield do.SetDown(port.vm, port.interface, link.index)
    if found is not None:
        yield do.RemoveGuard(port.vm, port.interface, found)
    if link is not None:
        yield do.DeleteLink(port.vm, port.interface, link.index)


def _creation(port: Port, found: GuardState | None) -> Iterator[do.Operation]:
    yield do.CreateLink(port.vm, port.interface, port.kind, port.guest_interface, port.mac, port.guest_mac, port.mtu)
    yield do.SetAlias(port.vm, port.interface, port.alias)
    if port.alternative_name is not None:
        yield do.AddAlternativeName(port.vm, port.interface, port.alternative_name)
    for name, value in port.sysctls.items():
        yield do.SetSysctl(port.vm, port.interface, name, value)
    for address in sorted(port.addresses, key=str):
        yield do.AddAddress(port.vm, port.interface, address)
    # A chain that outlived its device may hang on nothing: it is made anew with the link.
    yield do.LoadGuard(port.vm, port.interface, port.guard, found)
    yield from _joining(port, None, isolated=False)
    yield do.SetUp(port.vm, port.interface)


def _joining(port: Port, master: str | None, *, isolated: bool) -> Iterator[do.Operation]:
    if master != port.bridge:
        yield bridges.SetMaster(port.vm, port.interface, port.bridge)
        isolated = False
    if isolated != port.isolated:
        yield bridges.SetIsolated(port.vm, port.interface, port.isolated)


def _repair(port: Port, link: Link) -> Iterator[do.Operation]:
    if link.alias != port.alias:
        yield do.SetAlias(port.vm, port.interface, port.alias)
    if port.alternative_name is not None and port.alternative_name not in link.alternative_names:
        yield do.AddAlternativeName(port.vm, port.interface, port.alternative_name)
    if link.mac != port.mac:
        yield do.SetMac(port.vm, port.interface, port.mac)
    if link.mtu != port.mtu:
        yield do.SetMtu(port.vm, port.interface, port.mtu)
    for name, value in port.sysctls.items():
        if link.sysctls.get(name) != value:
            yield do.SetSysctl(port.vm, port.interface, name, value)
    for address in sorted(link.addresses - port.addresses, key=str):
        yield do.RemoveAddress(port.vm, port.interface, address)
    for address in sorted(port.addresses - link.addresses, key=str):
        yield do.AddAddress(port.vm, port.interface, address)
    yield from _joining(port, link.master, isolated=link.isolated)
