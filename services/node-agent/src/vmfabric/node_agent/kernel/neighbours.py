"""Neighbours that the node answers for: the kernel's proxy entries, for ARP and for neighbour discovery."""

import socket
import struct
from collections.abc import Mapping
from ipaddress import ip_address

from vmfabric.contract.addresses import HostAddress
from vmfabric.node_agent.domain.actual import Link, Proxy
from vmfabric.node_agent.kernel.dump import Dump
from vmfabric.node_agent.kernel.netlink import Netlink

# linux/neighbour.h
_RTM_GETNEIGH = 30
_MESSAGE = struct.Struct("=BxxxiHBB")
_DESTINATION = 1
_NTF_PROXY = 0x08


def read(dump: Dump, links: Mapping[str, Link]) -> frozenset[Proxy]:
    """All of them, anybody's. pyroute2 0.9 shows none: it leaves the flag out of its request."""
    names = {link.index: link.name for link in links.values()}
    return frozenset(
        Proxy(ip_address(entry.attributes[_DESTINATION]), names[index])
        for family in (socket.AF_INET, socket.AF_INET6)
        for entry in dump.entries(_RTM_GETNEIGH, _MESSAGE.pack(family, 0, 0, _NTF_PROXY, 0), _MESSAGE.size)
        if (index := _MESSAGE.unpack(entry.fixed)[1]) in names
    )


def add(netlink: Netlink, interface: str, address: HostAddress) -> None:
    """Answer for it on this link."""
    netlink.neigh("replace", **_spec(interface, address))


def remove(netlink: Netlink, interface: str, address: HostAddress) -> None:
    """Answer for it no more."""
    netlink.neigh("del", **_spec(interface, address))


def _spec(interface: str, address: HostAddress) -> dict[str, str | int]:
    return {
        "family": socket.AF_INET if address.version == 4 else socket.AF_INET6,
        "ifindex": socket.if_nametoindex(interface),
        "dst": str(address),
        "flags": _NTF_PROXY,
    }
