"""VLANs of bridges and their ports."""

import socket
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import assert_never

from vmfabric.node_agent.domain import bridge_operations as bridges
from vmfabric.node_agent.domain.actual import LinkKind, PortVlan
from vmfabric.node_agent.kernel.dump import Dump, attribute, attribute_list
from vmfabric.node_agent.kernel.netlink import Netlink

# linux/rtnetlink.h, linux/if_link.h, linux/if_bridge.h
_RTM_GETLINK = 18
_INFO = struct.Struct("=BxHiII")
_U32, _VLAN = struct.Struct("=I"), struct.Struct("=HH")
_AF_SPEC, _EXT_MASK, _BRIDGE_VLAN_INFO = 26, 29, 2
_RANGES_OF_VLANS = 1 << 2
_PVID, _UNTAGGED, _RANGE_BEGIN, _RANGE_END = 0x2, 0x4, 0x8, 0x10


def read(dump: Dump) -> Mapping[int, frozenset[PortVlan]]:
    """Those of every port of a bridge, by the port's index."""
    request = _INFO.pack(socket.AF_BRIDGE, 0, 0, 0, 0) + attribute(_EXT_MASK, _U32.pack(_RANGES_OF_VLANS))
    found: defaultdict[int, frozenset[PortVlan]] = defaultdict(frozenset)
    for entry in dump.entries(_RTM_GETLINK, request, _INFO.size):
        index = _INFO.unpack(entry.fixed)[2]
        # A NIC that is a switch itself has an entry of its own beside that of the bridge.
        found[index] |= frozenset(_vlans(entry.attributes.get(_AF_SPEC, b"")))
    return found


def change(netlink: Netlink, operation: bridges.VlanOperation) -> None:
    """A bridge's filtering, or what a port is in."""
    index = socket.if_nametoindex(operation.interface)
    match operation:
        case bridges.SetVlanFiltering(is_on=is_on):
            netlink.link("set", index=index, kind=LinkKind.BRIDGE.value, br_vlan_filtering=int(is_on))
        case bridges.JoinVlan(vlan=vlan):
            flags = _PVID * vlan.comes_untagged | _UNTAGGED * vlan.leaves_untagged
            netlink.vlan_filter("add", index=index, vlan_info={"vid": vlan.number, "flags": flags})
        case bridges.LeaveVlans(first=first, last=last):
            # pyroute2 takes a range of one for none at all.
            which = first if first == last else f"{first}-{last}"
            netlink.vlan_filter("del", index=index, vlan_info={"vid": which, "flags": 0})
        case _:
            assert_never(operation)


def _vlans(specification: bytes) -> Iterator[PortVlan]:
    first = 0
    for kind, data in attribute_list(specification):
        if kind != _BRIDGE_VLAN_INFO:
            continue
        flags, number = _VLAN.unpack(data)
        if flags & _RANGE_BEGIN:
            first = number
            continue
        for each in range(first if flags & _RANGE_END else number, number + 1):
            yield PortVlan(each, bool(flags & _PVID), bool(flags & _UNTAGGED))
