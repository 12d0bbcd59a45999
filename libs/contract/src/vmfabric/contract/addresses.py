"""Addresses as they may come from outside: one spelling each, no scope id, no IPv4 inside IPv6."""

import re
from enum import StrEnum
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Annotated

from pydantic import AfterValidator, PlainValidator, StringConstraints

from vmfabric.contract.patterns import COMMUNITY, MAC

_ADDRESS_TEXT = re.compile(r"\A[0-9a-fA-F:.]{2,45}\Z")
_PREFIX_TEXT = re.compile(r"\A[0-9a-fA-F:.]{2,45}/[0-9]{1,3}\Z")
_NO_ADDRESS = "not an IPv4 or IPv6 address"
_REMEMBERED = 10_000
"""The same addresses come again and again."""


class Family(StrEnum):
    """An address family."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @staticmethod
    def of(value: "HostAddress | Prefix") -> "Family":
        """The family of an address or a prefix."""
        return Family.IPV4 if value.version == 4 else Family.IPV6

    @property
    def host_length(self) -> int:
        """The prefix length of a single host: 32 or 128."""
        return 32 if self is Family.IPV4 else 128


def _host(value: object) -> IPv4Address | IPv6Address:
    # A scope id may carry any text, newlines too, through the standard library and pydantic (RFC 4007, 11.2), and
    # both read a number as an address.
    if getattr(value, "scope_id", None) is not None or (isinstance(value, str) and "%" in value):
        raise ValueError("a scope id (%) is not allowed")
    if isinstance(value, str):
        return _host_of(value)
    if isinstance(value, (IPv4Address, IPv6Address)):
        return _no_embedded_ipv4(value)
    raise ValueError(_NO_ADDRESS)


@lru_cache(maxsize=_REMEMBERED)
def _host_of(text: str) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(text)
    except ValueError as error:
        raise ValueError(_NO_ADDRESS) from error
    if not _ADDRESS_TEXT.match(text):
        raise ValueError(_NO_ADDRESS)
    return _no_embedded_ipv4(address)


def _no_embedded_ipv4(value: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(value, IPv6Address) and value.ipv4_mapped is not None:
        raise ValueError("an IPv4 address inside IPv6; write it as IPv4")
    return value


def _prefix(value: object) -> IPv4Network | IPv6Network:
    if isinstance(value, str) and _PREFIX_TEXT.match(value):
        return _prefix_of(value)
    if isinstance(value, (IPv4Network, IPv6Network)):
        _no_embedded_ipv4(value.network_address)
        return value
    raise ValueError("not a prefix; write address/length, as in 198.51.100.0/24")


@lru_cache(maxsize=_REMEMBERED)
def _prefix_of(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError(f"not a prefix: {error}") from error
    if network.network_address != ip_address(text.partition("/")[0]):
        raise ValueError(f"has bits set behind its length; {network} is the prefix")
    _no_embedded_ipv4(network.network_address)
    return network


def _masked(value: object) -> IPv4Interface | IPv6Interface:
    if isinstance(value, str) and _PREFIX_TEXT.match(value):
        return _masked_of(value)
    if isinstance(value, (IPv4Interface, IPv6Interface)):
        _no_embedded_ipv4(value.ip)
        return value
    raise ValueError("not an address with a mask; write address/length, as in 198.51.100.7/24")


@lru_cache(maxsize=_REMEMBERED)
def _masked_of(text: str) -> IPv4Interface | IPv6Interface:
    try:
        interface = ip_interface(text)
    except ValueError as error:
        raise ValueError(f"not an address with a mask: {error}") from error
    _no_embedded_ipv4(interface.ip)
    return interface


_AnyAddress = IPv4Address | IPv6Address
_AnyNetwork = IPv4Network | IPv6Network
_AnyInterface = IPv4Interface | IPv6Interface

HostAddress = Annotated[_AnyAddress, PlainValidator(_host, json_schema_input_type=_AnyAddress)]
"""One address of a host."""

Prefix = Annotated[_AnyNetwork, PlainValidator(_prefix, json_schema_input_type=_AnyNetwork)]
"""A network prefix whose host bits are zero."""

MaskedAddress = Annotated[_AnyInterface, PlainValidator(_masked, json_schema_input_type=_AnyInterface)]
"""The address of a host with the length of its network's prefix."""


def _unicast_mac(value: str) -> str:
    if int(value[:2], 16) & 1:
        raise ValueError("a multicast MAC address cannot belong to an interface")
    if value == "00:00:00:00:00:00":
        raise ValueError("the zero MAC address cannot belong to an interface")
    return value


Mac = Annotated[
    str,
    StringConstraints(strict=True, pattern=MAC),
    AfterValidator(_unicast_mac),
]
"""A unicast MAC address: six lower-case octets with colons."""


def link_local(mac: Mac) -> IPv6Address:
    """The link-local address that follows from a MAC address (modified EUI-64: RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    return IPv6Address(bytes([0xFE, 0x80, *bytes(6), octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]]))


def _community_parts(value: str) -> str:
    parts = [int(part) for part in value.split(":")]
    limit = 0xFFFF if len(parts) == 2 else 0xFFFFFFFF
    if any(part > limit for part in parts):
        raise ValueError(f"each part of this community is at most {limit}")
    return value


Community = Annotated[
    str,
    StringConstraints(strict=True, pattern=COMMUNITY),
    AfterValidator(_community_parts),
]
"""A BGP community `asn:value` of 16 bits each (RFC 1997), or a large one of three 32-bit parts (RFC 8092)."""


@lru_cache(maxsize=_REMEMBERED)
def host_prefix(address: HostAddress) -> Prefix:
    """The /32 or /128 of one address."""
    return ip_network(address)


def named_by(routed: Prefix) -> HostAddress:
    """The address by which what is routed to a VM is known: its only one, or the first behind the prefix's own."""
    first = routed.network_address
    return first if routed.prefixlen == routed.max_prefixlen else first + 1


def lies_inside(inner: Prefix, outer: Prefix) -> bool:
    """Whether every address of the one is one of the other."""
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner.subnet_of(outer)
    return False


def parse_host(text: str) -> HostAddress:
    """Text to address, by the same rules as a field of an event. ValueError when it is none."""
    return _host(text)
