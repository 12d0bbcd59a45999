"""Host routes of the main table."""

import socket
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

from vmfabric.contract.addresses import Prefix
from vmfabric.contract.dataplane import KERNEL_PROTOCOL, ROUTE_METRIC
from vmfabric.node_agent.domain.actual import HostRoute, Link
from vmfabric.node_agent.kernel.netlink import Netlink

_MAIN_TABLE = 254
_SCOPE_LINK = 253
_SCOPE_UNIVERSE = 0
_ANY = {socket.AF_INET: "0.0.0.0/0", socket.AF_INET6: "::/0"}


def read(netlink: Netlink, links: Mapping[str, Link]) -> frozenset[HostRoute]:
    """The routes with our protocol number, wherever they lead."""
    names = {link.index: link.name for link in links.values()}
    return frozenset(
        _route(message, names, _ANY[family])
        for family in (socket.AF_INET, socket.AF_INET6)
        for message in netlink.get_routes(family=family, proto=KERNEL_PROTOCOL, table=_MAIN_TABLE)
    )


def add(netlink: Netlink, interface: str, prefix: Prefix) -> None:
    """An error when somebody has a route to this prefix with this metric already."""
    netlink.route("add", **_spec(interface, prefix, ROUTE_METRIC))


def remove(netlink: Netlink, interface: str, prefix: Prefix, metric: int) -> None:
    """Only the route that has our protocol number."""
    netlink.route("del", **_spec(interface, prefix, metric))


def _spec(interface: str, prefix: Prefix, metric: int) -> dict[str, Any]:
    ipv4 = prefix.version == 4
    return {
        "family": socket.AF_INET if ipv4 else socket.AF_INET6,
        "dst": str(prefix),
        "oif": socket.if_nametoindex(interface),
        "proto": KERNEL_PROTOCOL,
        "priority": metric,
        "table": _MAIN_TABLE,
        "scope": _SCOPE_LINK if ipv4 else _SCOPE_UNIVERSE,
    }


def _route(message: Any, names: Mapping[int, str], default: str) -> HostRoute:
    destination = message.get_attr("RTA_DST")
    index = message.get_attr("RTA_OIF")
    return HostRoute(
        prefix=ip_network(f"{destination}/{message['dst_len']}" if destination else default),
        # A route of several next hops or of none is nobody's port.
        interface=names.get(index, "") if index is not None else "",
        metric=message.get_attr("RTA_PRIORITY") or 0,
    )
