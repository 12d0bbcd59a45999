"""Questions to neighbours and announcements to all of them, as Ethernet frames (RFC 826, RFC 4861, RFC 5227)."""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from vmfabric.contract.addresses import HostAddress, Mac

_ARP, _IPV6, _VLAN = 0x0806, 0x86DD, 0x8100
_REQUEST = 1
_ICMPV6 = 58
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_LINK_ADDRESS, _TARGET_LINK_ADDRESS = 1, 2
_OVERRIDE = 0x20000000
_BROADCAST = bytes.fromhex("ffffffffffff")
_ALL_NODES = IPv6Address("ff02::1")
_SOLICITED_NODE = int(IPv6Address("ff02::1:ff00:0"))
_HOP_LIMIT = 255
_ETHERNET, _TAG, _ARP_PACKET, _HEADER = (
    struct.Struct("!6s6sH"),
    struct.Struct("!HH"),
    struct.Struct("!HHBBH6s4s6s4s"),
    struct.Struct("!IHBB16s16s"),
)


@dataclass(frozen=True, slots=True)
class Question:
    """Is there somebody with this address?"""

    target: HostAddress
    source: HostAddress
    """Of the same family; who asks."""

    def frame(self, mac: Mac) -> bytes:
        """As it is sent from this MAC address."""
        if isinstance(self.target, IPv4Address) and isinstance(self.source, IPv4Address):
            return _arp(_REQUEST, mac, self.source, self.target)
        target, source = IPv6Address(self.target), IPv6Address(self.source)
        group = IPv6Address(_SOLICITED_NODE | (int(target) & 0xFFFFFF))
        message = struct.pack(
            "!BBHI16sBB6s", _SOLICITATION, 0, 0, 0, target.packed, _SOURCE_LINK_ADDRESS, 1, _octets(mac)
        )
        return _icmpv6(mac, source, group, message)

    def is_answered_by(self, frame: bytes) -> bool:
        """Whether this frame is the answer."""
        if isinstance(self.target, IPv4Address):
            return frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x02" and frame[28:32] == self.target.packed
        return (
            frame[12:14] == b"\x86\xdd"
            and frame[20:21] == bytes([_ICMPV6])
            and frame[54:55] == bytes([_ADVERTISEMENT])
            and frame[62:78] == self.target.packed
        )


def announcement(address: HostAddress, mac: Mac) -> bytes:
    """By which switches and neighbours learn that the address, and its MAC address, are here."""
    if isinstance(address, IPv4Address):
        return _arp(_REQUEST, mac, address, address)
    message = struct.pack(
        "!BBHI16sBB6s", _ADVERTISEMENT, 0, 0, _OVERRIDE, address.packed, _TARGET_LINK_ADDRESS, 1, _octets(mac)
    )
    return _icmpv6(mac, address, _ALL_NODES, message)


def tagged(frame: bytes, vlan: int) -> bytes:
    """The frame as it is on a link that carries several VLANs (IEEE 802.1Q)."""
    return frame[:12] + _TAG.pack(_VLAN, vlan) + frame[12:]


def _arp(operation: int, mac: Mac, sender: IPv4Address, target: IPv4Address) -> bytes:
    body = _ARP_PACKET.pack(1, 0x0800, 6, 4, operation, _octets(mac), sender.packed, bytes(6), target.packed)
    return _ETHERNET.pack(_BROADCAST, _octets(mac), _ARP) + body


def _icmpv6(mac: Mac, source: IPv6Address, group: IPv6Address, message: bytes) -> bytes:
    checksum = _checksum(source.packed + group.packed + struct.pack("!II", len(message), _ICMPV6) + message)
    header = _HEADER.pack(6 << 28, len(message), _ICMPV6, _HOP_LIMIT, source.packed, group.packed)
    ethernet = _ETHERNET.pack(b"\x33\x33" + group.packed[-4:], _octets(mac), _IPV6)
    return ethernet + header + message[:2] + checksum + message[4:]


def _checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def _octets(mac: Mac) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
