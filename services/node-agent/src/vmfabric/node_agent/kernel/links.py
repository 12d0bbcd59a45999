"""Network interfaces: TAPs and veth pairs."""

import fcntl
import os
import socket
import struct
from collections.abc import Collection, Mapping
from dataclasses import replace

from vmfabric.node_agent.domain.actual import BridgeSettings, InterfaceAddress, Link, LinkKind, VlanFiltering
from vmfabric.node_agent.domain.operations import CreateLink
from vmfabric.node_agent.domain.port import LINK_GROUP
from vmfabric.node_agent.kernel import vlans
from vmfabric.node_agent.kernel.dump import Dump, Entry, attribute, attribute_list, attributes
from vmfabric.node_agent.kernel.netlink import Netlink

_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000

# linux/rtnetlink.h, linux/if_link.h
_RTM_GETLINK = 18
_INFO = struct.Struct("=BxHiII")
_U16, _U32, _S32 = struct.Struct("=H"), struct.Struct("=I"), struct.Struct("=i")
_ADDRESS, _IFNAME, _MTU, _LINKINFO, _IFALIAS, _AF_SPEC = 1, 3, 4, 18, 20, 26
_LINK, _MASTER, _GROUP, _EXT_MASK, _PROP_LIST, _ALT_IFNAME = 5, 10, 27, 29, 52, 53
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_BRIDGE_PORT = b"bridge\0"
_VLAN_DEVICE = "vlan"
_BRPORT_ISOLATED = 33
_BR_FORWARD_DELAY, _BR_STP_STATE = 1, 5
_BR_VLAN_FILTERING, _BR_VLAN_DEFAULT_PVID = 7, 39
_INET_CONF, _INET6_CONF, _INET6_ADDR_GEN_MODE = 1, 2, 8
_SKIP_STATISTICS = 1 << 3

# Places in IFLA_INET_CONF (IPV4_DEVCONF_* - 1, linux/ip.h) and in IFLA_INET6_CONF (DEVCONF_*, linux/ipv6.h).
_IPV4_CONF = {
    "ipv4/forwarding": 0,
    "ipv4/proxy_arp": 2,
    "ipv4/send_redirects": 5,
    "ipv4/rp_filter": 7,
    "ipv4/arp_ignore": 18,
}
_IPV6_CONF = {
    "ipv6/forwarding": 0,
    "ipv6/accept_ra": 3,
    "ipv6/proxy_ndp": 22,
    "ipv6/disable_ipv6": 26,
    "ipv6/accept_dad": 27,
}

_DOOMED_GROUP = LINK_GROUP + 1
_WORTH_A_GROUP = 5

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_TUN_EXCL = 0x8000


def read(dump: Dump, addresses: Mapping[int, frozenset[InterfaceAddress]]) -> dict[str, Link]:
    """Every link of the namespace, by name."""
    request = _INFO.pack(0, 0, 0, 0, 0) + attribute(_EXT_MASK, _U32.pack(_SKIP_STATISTICS))
    entries = dump.entries(_RTM_GETLINK, request, _INFO.size)
    names = {_INFO.unpack(entry.fixed)[2]: _text(entry.attributes[_IFNAME]) for entry in entries}
    links = [_link(entry, addresses, names) for entry in entries]
    of_ports = vlans.read(dump) if any(link.filtering is not None for link in links) else {}
    return {
        link.name: replace(link, vlans=of_ports[link.index]) if link.index in of_ports else link for link in links
    }


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


def create_bridge(netlink: Netlink, interface: str, mac: str) -> None:
    """Make it, down. Its MAC address is its own, whatever ports it gets."""
    netlink.link("add", ifname=interface, kind=LinkKind.BRIDGE.value, group=LINK_GROUP, address=mac)


def set_bridge(netlink: Netlink, interface: str, settings: BridgeSettings) -> None:
    """How it forwards."""
    # Not in one message: while the spanning tree is on, the kernel refuses a delay that is as short as ours.
    for value in ({"br_stp_state": settings.stp}, {"br_forward_delay": settings.forward_delay}):
        netlink.link("set", index=socket.if_nametoindex(interface), kind=LinkKind.BRIDGE.value, **value)


def set_master(netlink: Netlink, interface: str, bridge: str | None) -> None:
    """None: no longer in any."""
    master = 0 if bridge is None else socket.if_nametoindex(bridge)
    netlink.link("set", index=socket.if_nametoindex(interface), master=master)


def isolate(netlink: Netlink, interface: str, *, isolated: bool) -> None:
    """As a port of a bridge."""
    netlink.brport("set", index=socket.if_nametoindex(interface), isolated=int(isolated))


def change(netlink: Netlink, interface: str, **values: str | int) -> None:
    """Set attributes of a link: `state`, `address`, `mtu`, `ifalias`."""
    netlink.link("set", index=socket.if_nametoindex(interface), **values)


def set_down(netlink: Netlink, index: int) -> None:
    """Its routes and IPv6 addresses go."""
    netlink.link("set", index=index, state="down")


def rename(netlink: Netlink, index: int, name: str) -> None:
    """An error while it is up, on older kernels, and when the name is taken."""
    netlink.link("set", index=index, ifname=name)


def add_alternative_name(netlink: Netlink, interface: str, name: str) -> None:
    """Another name that `ip link show` finds it by."""
    netlink.link("property_add", index=socket.if_nametoindex(interface), altname=name)


def delete(dump: Dump, netlink: Netlink, indices: Collection[int]) -> None:
    """The other end of a veth goes with it, wherever it is."""
    if len(indices) < _WORTH_A_GROUP or not _is_free(dump, _DOOMED_GROUP, indices):
        for index in indices:
            netlink.link("del", index=index)
        return
    # The kernel waits once for a whole group, and some 20 ms for each link that is deleted alone.
    for index in indices:
        netlink.link("set", index=index, group=_DOOMED_GROUP)
    netlink.link("del", group=_DOOMED_GROUP)


def _is_free(dump: Dump, group: int, indices: Collection[int]) -> bool:
    return all(link.index in indices for link in read(dump, {}).values() if link.group == group)


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


def _link(entry: Entry, addresses: Mapping[int, frozenset[InterfaceAddress]], names: Mapping[int, str]) -> Link:
    _family, _type, index, flags, _change = _INFO.unpack(entry.fixed)
    found = entry.attributes
    info = attributes(found.get(_LINKINFO, b""))
    kind = _text(info[_INFO_KIND]) if _INFO_KIND in info else None
    as_port = attributes(info.get(_INFO_SLAVE_DATA, b"")) if info.get(_INFO_SLAVE_KIND, b"") == _BRIDGE_PORT else {}
    master = _U32.unpack(found[_MASTER])[0] if _MASTER in found else 0
    mac = found.get(_ADDRESS)
    return Link(
        index=index,
        name=_text(found[_IFNAME]),
        kind=kind,
        alias=_text(found[_IFALIAS]) if _IFALIAS in found else None,
        alternative_names=frozenset(
            _text(name) for number, name in attribute_list(found.get(_PROP_LIST, b"")) if number == _ALT_IFNAME
        ),
        group=_U32.unpack(found[_GROUP])[0],
        mac=mac.hex(":") if mac else None,
        mtu=_U32.unpack(found[_MTU])[0],
        up=bool(flags & _IFF_UP),
        carrier=bool(flags & _IFF_LOWER_UP),
        addresses=addresses.get(index, frozenset()),
        sysctls=_sysctls(found),
        # One whose name is not known is in another namespace.
        master=names.get(master, f"link {master}") if master else None,
        isolated=as_port.get(_BRPORT_ISOLATED, b"\0") != b"\0",
        bridge=_bridge(attributes(info[_INFO_DATA])) if kind == LinkKind.BRIDGE else None,
        filtering=_filtering(attributes(info[_INFO_DATA])) if kind == LinkKind.BRIDGE else None,
        over=_U32.unpack(found[_LINK])[0] if kind == _VLAN_DEVICE and _LINK in found else None,
    )


def _bridge(found: Mapping[int, bytes]) -> BridgeSettings:
    return BridgeSettings(_U32.unpack(found[_BR_STP_STATE])[0], _U32.unpack(found[_BR_FORWARD_DELAY])[0])


def _filtering(found: Mapping[int, bytes]) -> VlanFiltering | None:
    if _BR_VLAN_DEFAULT_PVID not in found:  # without CONFIG_BRIDGE_VLAN_FILTERING
        return None
    return VlanFiltering(found[_BR_VLAN_FILTERING] != b"\0", _U16.unpack(found[_BR_VLAN_DEFAULT_PVID])[0])


def _sysctls(found: Mapping[int, bytes]) -> dict[str, int]:
    """The kernel gives every link's settings with the link, so no file has to be read."""
    families = attributes(found.get(_AF_SPEC, b""))
    ipv4 = attributes(families.get(socket.AF_INET, b"")).get(_INET_CONF)
    ipv6 = attributes(families.get(socket.AF_INET6, b""))
    values: dict[str, int] = {}
    if ipv4 is not None:
        values |= {name: _S32.unpack_from(ipv4, 4 * at)[0] for name, at in _IPV4_CONF.items()}
    if _INET6_CONF in ipv6:
        values |= {name: _S32.unpack_from(ipv6[_INET6_CONF], 4 * at)[0] for name, at in _IPV6_CONF.items()}
        values["ipv6/addr_gen_mode"] = ipv6[_INET6_ADDR_GEN_MODE][0]
    return values


def _text(data: bytes) -> str:
    # A stranger's alias may be any bytes.
    return data.rstrip(b"\0").decode(errors="replace")
