"""The first words of a guest that has just come: by them switches and neighbours learn where it is."""

from vmfabric.contract.addresses import Mac

_ARP, _RARP, _IPV6 = b"\x08\x06", b"\x80\x35", b"\x86\xdd"
_ICMPV6, _NEIGHBOUR_ADVERTISEMENT = 58, 136
_SOURCE, _TYPE, _NEXT_HEADER, _ICMPV6_TYPE = slice(6, 12), slice(12, 14), 20, 54


def is_announcement(frame: bytes, mac: Mac) -> bool:
    """Whether the guest with this MAC says where it is, in an Ethernet frame.

    Gratuitous ARP (RFC 5227), a neighbour advertisement (RFC 4861, 7.2.6), or the RARP that QEMU sends for a guest
    that has migrated. Any ARP of the guest does, since it sends none before it runs.
    """
    if frame[_SOURCE] != bytes.fromhex(mac.replace(":", "")):
        return False
    if frame[_TYPE] in {_ARP, _RARP}:
        return True
    is_long_enough = len(frame) > _ICMPV6_TYPE
    return (
        is_long_enough
        and frame[_TYPE] == _IPV6
        and frame[_NEXT_HEADER] == _ICMPV6
        and frame[_ICMPV6_TYPE] == _NEIGHBOUR_ADVERTISEMENT
    )
