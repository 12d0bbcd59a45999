"""Addresses of links."""

import socket
import struct
from collections import defaultdict
from ipaddress import ip_interface

from vmfabric.node_agent.domain.actual import InterfaceAddress
from vmfabric.node_agent.kernel.dump import Dump
from vmfabric.node_agent.kernel.netlink import Netlink

_RTM_GETADDR = 22
_MESSAGE = struct.Struct("=BBBBI")
_ADDRESS, _LOCAL = 1, 2
_IFA_F_NODAD = 0x02
_SCOPE_UNIVERSE = 0
_SCOPE_LINK = 253


def read(dump: Dump) -> dict[int, frozenset[InterfaceAddress]]:
    """The addresses of every link, by its index."""
    found: defaultdict[int, set[InterfaceAddress]] = defaultdict(set)
    for entry in dump.entries(_RTM_GETADDR, _MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0, 0), _MESSAGE.size):
        _family, length, _flags, _scope, index = _MESSAGE.unpack(entry.fixed)
        # IFA_ADDRESS is the other end where there is one.
        address = entry.attributes.get(_LOCAL) or entry.attributes[_ADDRESS]
        found[index].add(ip_interface((address, length)))
    return {index: frozenset(addresses) for index, addresses in found.items()}


def add(netlink: Netlink, interface: str, address: InterfaceAddress) -> None:
    """Valid at once, without duplicate address detection (RFC 4862, 5.4): the guest is the only neighbour."""
    ipv4 = address.version == 4
    netlink.addr(
        "add",
        index=socket.if_nametoindex(interface),
        address=str(address.ip),
        prefixlen=address.network.prefixlen,
        # Of the link, so that the node never takes it as the source of what it sends elsewhere.
        scope=_SCOPE_LINK if ipv4 or address.ip.is_link_local else _SCOPE_UNIVERSE,
        **({} if ipv4 else {"flags": _IFA_F_NODAD}),
    )


def remove(netlink: Netlink, interface: str, address: InterfaceAddress) -> None:
    """Take it away."""
    netlink.addr(
        "del",
        index=socket.if_nametoindex(interface),
        address=str(address.ip),
        prefixlen=address.network.prefixlen,
    )
