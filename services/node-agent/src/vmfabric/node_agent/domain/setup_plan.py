"""The difference between what a node should have of its own and what is there."""

from collections.abc import Collection, Iterator, Sequence

from vmfabric.contract.addresses import HostAddress, Prefix
from vmfabric.contract.dataplane import SUBNET_METRICS
from vmfabric.contract.names import VmName
from vmfabric.node_agent.domain import bridge_operations as bridges
from vmfabric.node_agent.domain import operations as do
from vmfabric.node_agent.domain.actual import Actual, BridgeSettings, InterfaceAddress, Link, LinkKind, Proxy
from vmfabric.node_agent.domain.naming import ALIAS_PREFIX, BRIDGE_ALIAS
from vmfabric.node_agent.domain.port import LINK_GROUP
from vmfabric.node_agent.domain.setup import OwnBridge, Setup, Uplink

BRIDGE_SETTINGS = BridgeSettings(stp=0, forward_delay=0)
"""The bridge has one way out at most, so there is no loop to break, and nothing to wait for."""


def is_ours(link: Link, alias: str) -> bool:
    """Whether the link is whose alias this is: by it, or by our group where no other alias of ours stands there."""
    return link.alias == alias or (link.group == LINK_GROUP and not (link.alias or "").startswith(ALIAS_PREFIX))


def node_problems(wanted: Setup, actual: Actual) -> Iterator[str]:
    """What is in the way of it."""
    yield from wanted.problems
    if wanted.bridge is not None and not _is_free(wanted.bridge, actual):
        link = actual.links[wanted.bridge.interface]
        yield (
            f"{link.name} should be this node's bridge, but another link has this name (kind {link.kind}, alias "
            f"{link.alias}); it is left alone: rename or delete it, or name another bridge in the cluster"
        )


def node_operations(wanted: Setup, actual: Actual, of_vms: Collection[HostAddress]) -> Iterator[do.Operation]:
    """What brings the node there, its VMs and their addresses aside."""
    for name, value in wanted.sysctls.items():
        if actual.sysctls.get(name) != value:
            yield do.SetNodeSysctl(name, value)
    if not actual.ruleset.complete:
        yield do.LoadTable()
    if wanted.uplink is not None:
        yield from _uplink(wanted.uplink, actual)
    is_free = wanted.bridge is not None and _is_free(wanted.bridge, actual)
    yield from _link_guards([wanted.uplink, wanted.bridge if is_free else None], actual)
    if wanted.bridge is not None and is_free:
        yield from _bridge(wanted.bridge, actual.links.get(wanted.bridge.interface))
        yield from _routes(wanted.bridge, actual)
        yield from proxy_operations(wanted.proxies, _own_proxies(wanted, wanted.bridge, actual, of_vms), None)


def proxy_operations(
    wanted: frozenset[Proxy], present: frozenset[Proxy], vm: VmName | None
) -> Iterator[do.Operation]:
    """What makes the node answer for the addresses of a VM, or for its own, where it should."""
    for proxy in sorted(present - wanted, key=str):
        yield bridges.RemoveProxy(vm, proxy.interface, proxy.address)
    for proxy in sorted(wanted - present, key=str):
        yield bridges.AddProxy(vm, proxy.interface, proxy.address)


def _own_proxies(
    wanted: Setup, bridge: OwnBridge, actual: Actual, of_vms: Collection[HostAddress]
) -> frozenset[Proxy]:
    """Those for the node's addresses, former ones too. A VM that nobody speaks of has a route still: it keeps its."""
    link = actual.links.get(bridge.interface)
    gateways = {it.ip for it in (bridge.addresses if link is None else bridge.addresses | link.addresses)}
    others = {*of_vms, *(it.prefix.network_address for it in actual.routes if it.metric not in SUBNET_METRICS)}
    uplink = wanted.uplink and wanted.uplink.guard.interface
    return frozenset(
        it
        for it in actual.proxies
        if it.address in gateways
        or (it.interface == uplink and it.address not in others and _is_in(it.address, wanted.answers_for))
    )


def _is_in(address: HostAddress, prefixes: Collection[Prefix]) -> bool:
    return any(address in prefix for prefix in prefixes)


def _is_free(bridge: OwnBridge, actual: Actual) -> bool:
    link = actual.links.get(bridge.interface)
    return link is None or (link.kind == LinkKind.BRIDGE and is_ours(link, BRIDGE_ALIAS))


def _uplink(uplink: Uplink, actual: Actual) -> Iterator[do.Operation]:
    link = actual.links[uplink.guard.interface]
    for name, value in uplink.sysctls.items():
        if link.sysctls.get(name) != value:
            yield do.SetSysctl(None, link.name, name, value)


def _link_guards(guarded: Sequence[Uplink | OwnBridge | None], actual: Actual) -> Iterator[do.Operation]:
    guards = [it.guard for it in guarded if it is not None]
    for stale in sorted(actual.link_guards.keys() - {guard.interface for guard in guards}):
        yield bridges.RemoveLinkGuard(None, stale)
    for guard in guards:
        # A chain that outlived its link may hang on nothing: it is made anew with the link.
        is_there = guard.interface in actual.links
        if not is_there or actual.link_guards.get(guard.interface) != guard.marks:
            yield bridges.LoadLinkGuard(None, guard.interface, guard)


def _bridge(wanted: OwnBridge, link: Link | None) -> Iterator[do.Operation]:
    name = wanted.interface
    if link is None:
        yield bridges.CreateBridge(None, name, wanted.mac)
    elif link.mac != wanted.mac:
        yield do.SetMac(None, name, wanted.mac)
    if link is None or link.alias != BRIDGE_ALIAS:
        yield do.SetAlias(None, name, BRIDGE_ALIAS)
    if link is None or link.bridge != BRIDGE_SETTINGS:
        yield bridges.SetBridge(None, name, BRIDGE_SETTINGS)
    for setting, value in wanted.sysctls.items():
        if link is None or link.sysctls.get(setting) != value:
            yield do.SetSysctl(None, name, setting, value)
    yield from _addresses(wanted, link.addresses if link is not None else frozenset())
    if link is None or not link.up:
        yield do.SetUp(None, name)


def _addresses(wanted: OwnBridge, have: frozenset[InterfaceAddress]) -> Iterator[do.Operation]:
    for address in sorted(have - wanted.addresses, key=str):
        yield do.RemoveAddress(None, wanted.interface, address)
    for address in sorted(wanted.addresses - have, key=str):
        yield do.AddAddress(None, wanted.interface, address)


def _routes(wanted: OwnBridge, actual: Actual) -> Iterator[do.Operation]:
    routes = {it for it in actual.routes if it.metric in SUBNET_METRICS}
    for route in sorted(routes - wanted.routes, key=str):
        yield do.RemoveRoute(None, route.interface, route.prefix, route.metric)
    for route in sorted(wanted.routes - routes, key=str):
        yield do.AddRoute(None, route.interface, route.prefix, route.metric, route.gateway)
