"""What the guest behind a port may send and how much, in the words of one nftables table.

Each port has an ingress chain of its own, which holds its limit and leads to the chains that all ports share
(`guest_rules.py`); what else differs between ports are elements of sets. So a frame costs the same with one VM and
with a thousand.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from vmfabric.contract.addresses import HostAddress, Mac, link_local
from vmfabric.contract.bandwidth import Bandwidth
from vmfabric.contract.names import InterfaceName

TABLE = "vmfabric"
"""In the family netdev. Nothing outside it is ours."""


class SetName(StrEnum):
    """The sets, keyed by interface and address."""

    MACS = "guest_macs"
    OCTETS = "guest_mac_octets"
    """The MAC address once more, as what neighbour discovery, RARP and DHCP speak of."""
    IPV4 = "guest_ipv4"
    IPV6 = "guest_ipv6"
    PREFIXES = "guest_prefixes"
    """Those that are delegated to it."""
    LINK_LOCAL = "guest_link_local"
    """Of ports on a segment."""
    TARGETS = "guest_targets"
    """The IPv6 addresses once more, as what neighbour discovery speaks of."""
    PREFIX_TARGETS = "guest_prefix_targets"
    """The same of prefixes."""


Address = Mac | IPv4Address | IPv6Address | IPv6Network
Element = tuple[SetName, Address]
"""What one of the sets holds for a port."""


class CounterName(StrEnum):
    """What was dropped, and why."""

    MAC = "dropped_mac"
    ARP = "dropped_arp"
    IPV4 = "dropped_ipv4"
    IPV6 = "dropped_ipv6"
    NEIGHBOUR = "dropped_neighbour"
    DHCP = "dropped_dhcp_server"
    ROUTER = "dropped_router"
    REDIRECT = "dropped_redirect"
    OTHER = "dropped_other"
    LIMIT_IN = "dropped_limit_in"
    LIMIT_OUT = "dropped_limit_out"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a chain."""

    name: str
    text: str

    @property
    def comment(self) -> str:
        """Its mark in the kernel: which rules are there is read back by these. Another text has another mark, so an
        agent finds what an older one loaded.
        """
        return f"{self.name} {hashlib.sha256(self.text.encode()).hexdigest()[:8]}"


def drop(counter: CounterName) -> str:
    """The end of a rule that drops and counts."""
    return f'counter name "{counter}" drop'


class Direction(StrEnum):
    """A port's own chains, by the beginning of their names."""

    OUT = "port-"
    """From the guest."""
    IN = "to-"
    """To the guest; only where that is limited."""


def chain_name(direction: Direction, interface: InterfaceName) -> str:
    """A chain of a port. A name of nft's must begin with a letter, an interface's need not."""
    return direction + interface


def interface_of_chain(chain: str) -> str | None:
    """The interface whose chain this is; None when it is a shared one."""
    own = (chain.removeprefix(direction) for direction in Direction if chain.startswith(direction))
    return next(own, None)


_BURST = 64 * 1024
"""Octets. A frame that segmentation offload has not cut yet is that long and must fit. The kernel adds a second's
worth to it by itself, which is what TCP needs to keep near the rate."""


def _limit(kbit: int, counter: CounterName) -> Rule:
    return Rule("limit", f"limit rate over {kbit * 125} bytes/second burst {_BURST} bytes {drop(counter)}")


_QUESTIONS = Rule(
    "questions",
    "icmpv6 type { nd-neighbor-solicit, nd-router-solicit } limit rate over 1/second burst 60 packets "
    + drop(CounterName.NEIGHBOUR),
)
"""The kernel's table of neighbours has room for a thousand, those of all links together (gc_thresh3, ip-sysctl)."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A port's own chain, as it was read or should be."""

    hooked: bool
    """To the port, where frames of its direction come by."""
    comments: tuple[str | None, ...]
    """Of its rules, in order."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What the guest behind one port may call itself, and how much it may send and receive."""

    interface: InterfaceName
    mac: Mac
    ipv4: frozenset[IPv4Address]
    ipv6: frozenset[IPv6Address]
    delegated: frozenset[IPv6Network]
    """All of whose addresses are the guest's too."""
    on_segment: bool
    """Whether others are on its link too, so that link-local addresses are not the guest's to choose."""
    asks_node: bool
    """Whether the node hears its solicitations, and remembers for each source who asked."""
    bandwidth: Bandwidth | None

    def rules(self, direction: Direction) -> tuple[Rule, ...]:
        """Those of its own chain; none where it needs no chain."""
        match direction:
            case Direction.OUT:
                kbit, counter = self.bandwidth and self.bandwidth.out_kbit, CounterName.LIMIT_OUT
                shared = [Rule("segment", "goto guest_segment") if self.on_segment else Rule("guest", "goto guest")]
                shared = [*([_QUESTIONS] if self.asks_node else []), *shared]
            case Direction.IN:
                kbit, counter = self.bandwidth and self.bandwidth.in_kbit, CounterName.LIMIT_IN
                shared = []
        return (*([_limit(kbit, counter)] if kbit else []), *shared)

    def loaded(self) -> "GuardState":
        """What the table holds when it is loaded."""
        return GuardState(self._chain(Direction.OUT), self._chain(Direction.IN), frozenset(self._elements()))

    def _chain(self, direction: Direction) -> Chain | None:
        rules = self.rules(direction)
        return Chain(hooked=True, comments=tuple(rule.comment for rule in rules)) if rules else None

    def _elements(self) -> Iterator[Element]:
        yield SetName.MACS, self.mac
        yield SetName.OCTETS, self.mac
        for ipv4 in self.ipv4:
            yield SetName.IPV4, ipv4
        for ipv6 in self.ipv6:
            yield SetName.IPV6, ipv6
            yield SetName.TARGETS, ipv6
        for prefix in self.delegated:
            yield SetName.PREFIXES, prefix
            yield SetName.PREFIX_TARGETS, prefix
        if self.on_segment:
            yield SetName.LINK_LOCAL, link_local(self.mac)
            yield SetName.TARGETS, link_local(self.mac)


@dataclass(frozen=True, slots=True)
class GuardState:
    """What the table holds for one port."""

    from_guest: Chain | None
    to_guest: Chain | None
    elements: frozenset[Element]

    @property
    def addresses(self) -> frozenset[HostAddress]:
        """The guest's own, its link-local one aside."""
        own = (address for name, address in self.elements if name in {SetName.IPV4, SetName.IPV6})
        return frozenset(address for address in own if isinstance(address, IPv4Address | IPv6Address))

    def chain(self, direction: Direction) -> Chain | None:
        """Its own chain, if there is one."""
        return self.from_guest if direction is Direction.OUT else self.to_guest

    def is_as(self, guard: Guard) -> bool:
        """Whether it lets through what it should and nothing else."""
        return self == guard.loaded()


NOT_GUARDED = GuardState(None, None, frozenset())
"""A port of which the table holds nothing."""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Our table, as it was read."""

    complete: bool
    """Whether the sets, the counters and the shared chains are there, with their rules in order."""
    guards: dict[str, GuardState]
    """By interface."""
