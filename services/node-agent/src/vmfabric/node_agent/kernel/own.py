"""The node's own part of the kernel: its bridge, its uplink, and the addresses and routes that move between them."""

import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import assert_never

from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain import bridge_operations as bridges
from vmfabric.node_agent.domain import held
from vmfabric.node_agent.domain.actual import Held, HeldAddress, HeldRoute
from vmfabric.node_agent.kernel import addresses, link_guard, links, neighbours, routes
from vmfabric.node_agent.kernel.dump import Dump, DumpInterruptedError
from vmfabric.node_agent.kernel.netlink import Netlink


def change_bridge(netlink: Netlink, operation: bridges.BridgeOperation) -> None:
    """A bridge, or a port of one."""
    match operation:
        case bridges.CreateBridge(interface=interface, mac=mac):
            links.create_bridge(netlink, interface, mac)
        case bridges.SetBridge(interface=interface, settings=settings):
            links.set_bridge(netlink, interface, settings)
        case bridges.SetMaster(interface=interface, bridge=bridge):
            links.set_master(netlink, interface, bridge)
        case bridges.SetIsolated(interface=interface, isolated=isolated):
            links.isolate(netlink, interface, isolated=isolated)
        case _:
            assert_never(operation)


def change_uplink(netlink: Netlink, operation: bridges.UplinkOperation) -> None:
    """What passes it, and whom the node answers for on it."""
    match operation:
        case bridges.LoadLinkGuard(guard=guard):
            link_guard.load(guard)
        case bridges.RemoveLinkGuard(interface=interface):
            link_guard.remove(interface)
        case bridges.AddProxy(interface=interface, address=address):
            neighbours.add(netlink, interface, address)
        case bridges.RemoveProxy(interface=interface, address=address):
            neighbours.remove(netlink, interface, address)
        case _:
            assert_never(operation)


def move(netlink: Netlink, operation: held.MoveOperation) -> None:
    """An address or a route, to a link or from it."""
    match operation:
        case held.PutAddress(interface=interface, held=address):
            addresses.put(netlink, interface, address)
        case held.TakeAddress(interface=interface, held=address):
            addresses.take(netlink, interface, address)
        case held.PutRoute(interface=interface, held=route):
            routes.put(netlink, interface, route)
        case held.TakeRoute(interface=interface, held=route):
            routes.take(netlink, interface, route)
        case _:
            assert_never(operation)


def read_routes(dump: Dump, names: Iterable[InterfaceName]) -> dict[int, tuple[HeldRoute, ...]]:
    """Over each of these links that is there, by its index."""
    found = {}
    for name in names:
        with suppress(OSError):
            index = socket.if_nametoindex(name)
            found[index] = routes.held(dump, index)
    return found


def held_by(index: int, over: Mapping[int, tuple[HeldRoute, ...]], given: Sequence[HeldAddress]) -> Held:
    """What a link of the node has; what the kernel makes by itself is left out."""
    if index not in over:
        raise DumpInterruptedError
    kept = tuple(it for it in given if not it.address.ip.is_link_local and not it.is_temporary)
    # Whoever gave an address without its connected route has made that too.
    with_connected = any(it.has_no_prefix_route for it in kept)
    return Held(kept, tuple(it for it in over[index] if with_connected or not it.is_connected))
