"""Host routes of the main table."""

import socket
import struct
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from vmfabric.contract.addresses import Prefix
from vmfabric.contract.dataplane import KERNEL_PROTOCOL
from vmfabric.node_agent.domain.actual import NOWHERE, HeldRoute, HostRoute, Link
from vmfabric.node_agent.kernel.dump import Dump, Entry, attribute
from vmfabric.node_agent.kernel.netlink import Netlink

_MAIN_TABLE, _LOCAL_TABLE = 254, 255
_SCOPE_LINK = 253
_SCOPE_UNIVERSE = 0
_SCOPE_NOWHERE = 255
"""In a deletion: of any scope."""
_RTM_GETROUTE = 26
_MESSAGE = struct.Struct("=BBBBBBBBI")
_U32 = struct.Struct("=I")
_DESTINATION, _OIF, _GATEWAY, _PRIORITY, _SOURCE = 1, 4, 5, 6, 7
_CACHEINFO, _TABLE, _PREFERENCE = 12, 15, 20
_PLAIN = frozenset({_DESTINATION, _OIF, _GATEWAY, _PRIORITY, _SOURCE, _CACHEINFO, _TABLE, _PREFERENCE})
_RTN_UNICAST = 1
_RTPROT_KERNEL = 2
_RTNH_F_ONLINK = 4


def read(dump: Dump, links: Mapping[str, Link]) -> frozenset[HostRoute]:
    """The routes of the main table with our protocol number, wherever they lead."""
    names = {link.index: link.name for link in links.values()}
    return frozenset(
        _route(entry, names)
        for family in (socket.AF_INET, socket.AF_INET6)
        for entry in dump.entries(_RTM_GETROUTE, _request(family), _MESSAGE.size)
        if _is_ours(entry)
    )


def held(dump: Dump, index: int) -> tuple[HeldRoute, ...]:
    """Those over one link. One of another table than the main one is not plain."""
    return tuple(
        _held(entry)
        for family in (socket.AF_INET, socket.AF_INET6)
        for entry in dump.entries(
            _RTM_GETROUTE,
            _MESSAGE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + attribute(_OIF, _U32.pack(index)),
            _MESSAGE.size,
        )
        if _is_held(entry)
    )


def put(netlink: Netlink, interface: str, route: HeldRoute) -> None:
    """Instead of any other with the same prefix and metric."""
    netlink.route("replace", **_held_spec(interface, route), **({"flags": _RTNH_F_ONLINK} if route.on_link else {}))


def take(netlink: Netlink, interface: str, route: HeldRoute) -> None:
    """Only that one."""
    netlink.route("del", **_held_spec(interface, route))


def add(netlink: Netlink, route: HostRoute) -> None:
    """An error when somebody has a route to this prefix with this metric already."""
    gateway = {} if route.gateway is None else {"gateway": str(route.gateway)}
    kind = {"type": "unreachable"} if route.interface == NOWHERE else {}
    netlink.route("add", **_spec(route), **gateway, **kind)


def remove(netlink: Netlink, interface: str, prefix: Prefix, metric: int) -> None:
    """Only the route that has our protocol number, whatever its gateway."""
    spec = _spec(HostRoute(prefix, interface, metric))
    netlink.route("del", **{**spec, "scope": _SCOPE_NOWHERE})


def _spec(route: HostRoute) -> dict[str, Any]:
    ipv4 = route.prefix.version == 4
    return {
        "family": socket.AF_INET if ipv4 else socket.AF_INET6,
        "dst": str(route.prefix),
        "oif": socket.if_nametoindex(route.interface),
        "proto": KERNEL_PROTOCOL,
        "priority": route.metric,
        "table": _MAIN_TABLE,
        "scope": _SCOPE_LINK if ipv4 and route.gateway is None else _SCOPE_UNIVERSE,
    }


def _held_spec(interface: str, route: HeldRoute) -> dict[str, Any]:
    return {
        "family": socket.AF_INET if route.prefix.version == 4 else socket.AF_INET6,
        "dst": str(route.prefix),
        "oif": socket.if_nametoindex(interface),
        "proto": route.protocol,
        "scope": route.scope,
        "table": _MAIN_TABLE,
        **({"priority": route.metric} if route.metric else {}),
        **({} if route.gateway is None else {"gateway": str(route.gateway)}),
        **({} if route.source is None else {"prefsrc": str(route.source)}),
    }


def _is_held(entry: Entry) -> bool:
    family, length, _source_length, _tos, table, _protocol, _scope, kind, _flags = _MESSAGE.unpack(entry.fixed)
    return table != _LOCAL_TABLE and kind == _RTN_UNICAST and not _network(family, length, entry).is_link_local


def _held(entry: Entry) -> HeldRoute:
    family, length, _source_length, tos, table, protocol, scope, _kind, flags = _MESSAGE.unpack(entry.fixed)
    found = entry.attributes
    return HeldRoute(
        prefix=_network(family, length, entry),
        gateway=ip_address(found[_GATEWAY]) if _GATEWAY in found else None,
        metric=_U32.unpack(found[_PRIORITY])[0] if _PRIORITY in found else 0,
        protocol=protocol,
        scope=scope,
        source=ip_address(found[_SOURCE]) if _SOURCE in found else None,
        is_connected=protocol == _RTPROT_KERNEL,
        on_link=bool(flags & _RTNH_F_ONLINK),
        is_plain=tos == 0 and table == _MAIN_TABLE and found.keys() <= _PLAIN,
    )


def _network(family: int, length: int, entry: Entry) -> Prefix:
    return ip_network((entry.attributes.get(_DESTINATION) or bytes(4 if family == socket.AF_INET else 16), length))


def _request(family: int) -> bytes:
    # Not narrowed to the main table: where that is still empty, the kernel says that there is no such table.
    return _MESSAGE.pack(family, 0, 0, 0, 0, KERNEL_PROTOCOL, 0, 0, 0)


def _is_ours(entry: Entry) -> bool:
    table, protocol = entry.fixed[4:6]
    return protocol == KERNEL_PROTOCOL and table == _MAIN_TABLE


def _route(entry: Entry, names: Mapping[int, str]) -> HostRoute:
    family, length, *_rest = _MESSAGE.unpack(entry.fixed)
    found = entry.attributes
    return HostRoute(
        prefix=_network(family, length, entry),
        # A route of several next hops or of none is nobody's port.
        interface=names.get(_U32.unpack(found[_OIF])[0], "") if _OIF in found else "",
        metric=_U32.unpack(found[_PRIORITY])[0] if _PRIORITY in found else 0,
        gateway=ip_address(found[_GATEWAY]) if _GATEWAY in found else None,
    )
