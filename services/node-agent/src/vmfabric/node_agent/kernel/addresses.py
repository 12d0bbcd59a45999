"""Addresses of links."""

import socket
import struct
from collections import defaultdict
from ipaddress import IPv4Address, ip_address, ip_interface
from typing import Any

from vmfabric.node_agent.domain.actual import HeldAddress, InterfaceAddress
from vmfabric.node_agent.kernel.dump import Dump
from vmfabric.node_agent.kernel.netlink import Netlink

_RTM_GETADDR = 22
_MESSAGE = struct.Struct("=BBBBI")
_U32 = struct.Struct("=I")
_ADDRESS, _LOCAL, _BROADCAST, _FLAGS, _METRIC = 1, 2, 4, 8, 9
_IFA_F_TEMPORARY, _IFA_F_NODAD, _IFA_F_NOPREFIXROUTE = 0x01, 0x02, 0x200
_SCOPE_UNIVERSE = 0
_SCOPE_LINK = 253


def read(dump: Dump) -> dict[int, tuple[HeldAddress, ...]]:
    """The addresses of every link, by its index, in the order in which they were given."""
    found: defaultdict[int, list[HeldAddress]] = defaultdict(list)
    for entry in dump.entries(_RTM_GETADDR, _MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0, 0), _MESSAGE.size):
        family, length, _flags, scope, index = _MESSAGE.unpack(entry.fixed)
        of = entry.attributes
        flags = _U32.unpack(of[_FLAGS])[0]
        found[index].append(
            HeldAddress(
                address=ip_interface((of.get(_LOCAL) or of[_ADDRESS], length)),
                peer=ip_address(of[_ADDRESS]) if of.get(_LOCAL, of[_ADDRESS]) != of[_ADDRESS] else None,
                scope=scope,
                broadcast=IPv4Address(of[_BROADCAST]) if _BROADCAST in of else None,
                metric=_U32.unpack(of[_METRIC])[0] if _METRIC in of else 0,
                has_no_prefix_route=bool(flags & _IFA_F_NOPREFIXROUTE),
                is_temporary=family == socket.AF_INET6 and bool(flags & _IFA_F_TEMPORARY),
            )
        )
    return {index: tuple(addresses) for index, addresses in found.items()}


def put(netlink: Netlink, interface: str, held: HeldAddress) -> None:
    """Valid at once and for ever: nobody else has it, since it was this node's before."""
    ipv6 = held.address.version == 6
    flags = _IFA_F_NODAD if ipv6 else 0
    if held.has_no_prefix_route:
        flags |= _IFA_F_NOPREFIXROUTE
    netlink.addr(
        "replace",
        **_held_spec(interface, held),
        scope=held.scope,
        **({} if held.broadcast is None else {"broadcast": str(held.broadcast)}),
        **({"rt_priority": held.metric} if held.metric else {}),
        **({"flags": flags} if flags else {}),
    )


def take(netlink: Netlink, interface: str, held: HeldAddress) -> None:
    """The peer tells it from another one with the same address."""
    netlink.addr("del", **_held_spec(interface, held))


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
    take(netlink, interface, HeldAddress(address))


def _held_spec(interface: str, held: HeldAddress) -> dict[str, Any]:
    return {
        "index": socket.if_nametoindex(interface),
        "address": str(held.peer or held.address.ip),
        "local": str(held.address.ip),
        "prefixlen": held.address.network.prefixlen,
    }
