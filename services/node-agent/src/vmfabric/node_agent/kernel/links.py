"""Network interfaces: TAPs and veth pairs."""

import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from typing import Any

from vmfabric.node_agent.domain.actual import InterfaceAddress, Link, LinkKind
from vmfabric.node_agent.domain.operations import CreateLink
from vmfabric.node_agent.domain.port import LINK_GROUP, SYSCTLS
from vmfabric.node_agent.kernel.netlink import Netlink

_IFF_UP = 0x1

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_TUN_EXCL = 0x8000


def read(netlink: Netlink, addresses: Mapping[int, frozenset[InterfaceAddress]]) -> dict[str, Link]:
    """Every link of the namespace, by name."""
    links = (_link(message, addresses) for message in netlink.get_links())
    return {link.name: link for link in links}


def create(netlink: Netlink, wanted: CreateLink) -> None:
    """Make it, down. It carries our group from the first moment that it can outlive us."""
    if wanted.guest_interface is None:
        _create_tap(netlink, wanted)
        return
    netlink.link(
        "add",
        ifname=wanted.interface,
        kind=LinkKind.VETH.value,
        group=LINK_GROUP,
        address=wanted.mac,
        mtu=wanted.mtu,
        peer={"ifname": wanted.guest_interface, "address": wanted.guest_mac, "mtu": wanted.mtu},
    )


def change(netlink: Netlink, interface: str, **values: str | int) -> None:
    """Set attributes of a link: `state`, `address`, `mtu`, `ifalias`."""
    netlink.link("set", index=socket.if_nametoindex(interface), **values)


def add_alternative_name(netlink: Netlink, interface: str, name: str) -> None:
    """Another name that `ip link show` finds it by."""
    netlink.link("property_add", index=socket.if_nametoindex(interface), altname=name)


def delete(netlink: Netlink, index: int) -> None:
    """The other end of a veth goes with it, wherever it is."""
    netlink.link("del", index=index)


def _create_tap(netlink: Netlink, wanted: CreateLink) -> None:
    # It is made persistent last: should we die before, the kernel takes it away with our file descriptor.
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_TUN_EXCL
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", wanted.interface.encode(), flags))
        change(netlink, wanted.interface, address=wanted.mac, mtu=wanted.mtu, group=LINK_GROUP)
        fcntl.ioctl(device, _TUNSETPERSIST, 1)
    finally:
        os.close(device)


def _link(message: Any, addresses: Mapping[int, frozenset[InterfaceAddress]]) -> Link:
    index = message["index"]
    info = message.get_attr("IFLA_LINKINFO")
    names = message.get_attr("IFLA_PROP_LIST")
    return Link(
        index=index,
        name=message.get_attr("IFLA_IFNAME"),
        kind=info.get_attr("IFLA_INFO_KIND") if info else None,
        alias=message.get_attr("IFLA_IFALIAS") or None,
        alternative_names=frozenset(names.get_attrs("IFLA_ALT_IFNAME") if names else ()),
        group=message.get_attr("IFLA_GROUP"),
        mac=message.get_attr("IFLA_ADDRESS"),
        mtu=message.get_attr("IFLA_MTU"),
        up=bool(message["flags"] & _IFF_UP),
        addresses=addresses.get(index, frozenset()),
        sysctls=_sysctls(message),
    )


def _sysctls(message: Any) -> dict[str, int]:
    """The kernel gives every link's settings with the link, so no file has to be read."""
    families = message.get_attr("IFLA_AF_SPEC")
    if families is None:
        return {}
    found = {f"ipv4/{name}": value for name, value in (families.get_attr("AF_INET") or {}).items()}
    ipv6 = families.get_attr("AF_INET6")
    if ipv6 is not None:
        found |= {f"ipv6/{name}": value for name, value in (ipv6.get_attr("IFLA_INET6_CONF") or {}).items()}
        found["ipv6/addr_gen_mode"] = ipv6.get_attr("IFLA_INET6_ADDR_GEN_MODE")
    return {name: value for name, value in found.items() if name in SYSCTLS}
