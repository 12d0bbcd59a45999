"""What a pool gives at once: an address, or a prefix together with the address by which it is reached."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from vmfabric.contract.addresses import Family, HostAddress, Prefix
from vmfabric.contract.pool import PoolSpec
from vmfabric.ipam.domain.allocation import Range


@dataclass(frozen=True, slots=True)
class Units:
    """Those of one family in one pool. Each has a number, and is named by an address: its only one, or the first one
    behind the prefix's own, which in IPv6 is that of all routers of a link (RFC 4291, 2.6.1).
    """

    family: Family
    bits: int = 0
    """How many bits of an address tell those of one unit apart."""

    def number_of(self, address: HostAddress) -> int:
        """Of the unit that the address is in."""
        return int(address) >> self.bits

    def address_of(self, number: int) -> HostAddress:
        """By which the unit is named."""
        first = number << self.bits
        return IPv4Address(first) if self.family is Family.IPV4 else IPv6Address(first + bool(self.bits))

    def prefix_of(self, first: int, bits: int = 0) -> Prefix:
        """So many units, as a power of two, from this one on."""
        network = IPv4Network if self.family is Family.IPV4 else IPv6Network
        return network((first << self.bits, self.family.host_length - self.bits - bits))

    def whole(self, first: HostAddress, last: HostAddress) -> tuple[HostAddress, HostAddress]:
        """The first and the last address of the units from that of `first` to that of `last`."""
        lowest, highest = self.number_of(first) << self.bits, (self.number_of(last) + 1 << self.bits) - 1
        kind = IPv4Address if self.family is Family.IPV4 else IPv6Address
        return kind(lowest), kind(highest)

    def inside(self, addresses: Range) -> Range | None:
        """Those of which every address is one of these."""
        first = -(-addresses.first >> self.bits)
        last = ((addresses.last + 1) >> self.bits) - 1
        return Range(first, last) if first <= last else None


def units(spec: PoolSpec, family: Family) -> Units:
    """What the pool gives of a family."""
    return Units(family, 0 if family is Family.IPV4 else Family.IPV6.host_length - spec.ipv6_length)


def delegated(address: HostAddress, ipv6_length: int) -> Prefix | None:
    """The prefix that goes with this address of a pool; None where that is nothing but the address."""
    if address.version == 4 or ipv6_length == Family.IPV6.host_length:
        return None
    return IPv6Network((address, ipv6_length), strict=False)
