"""What a guest may send, as one nftables table.

Each port has an ingress chain of its own, which only leads to the chains that all ports share; what differs between
ports are elements of sets. So a frame costs the same with one VM and with a thousand.

A guest may send from its own MAC address only; IPv4 from its own addresses; IPv6 from its own addresses, and from
link-local ones for neighbour discovery (RFC 4861), duplicate address detection (RFC 4862), multicast listener reports
(RFC 3810) and echo; as a neighbour it may claim its own addresses only; ARP with its own MAC and IPv4 address, or as
a probe (RFC 5227). It may not be a router, nor a DHCP server.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

from vmfabric.contract.addresses import Mac
from vmfabric.contract.names import InterfaceName

TABLE = "vmfabric"
"""In the family netdev. Nothing outside it is ours."""


class SetName(StrEnum):
    """The sets, keyed by interface and address."""

    MACS = "guest_macs"
    IPV4 = "guest_ipv4"
    IPV6 = "guest_ipv6"
    TARGETS = "guest_targets"
    """The IPv6 addresses once more, as what neighbour discovery speaks of."""


@dataclass(frozen=True, slots=True)
class SetKey:
    """What the elements of a set are."""

    declared: str
    """As it is written."""
    read: tuple[str, str]
    """The types that nft shows."""


_TARGET = "@th,64,128"
"""The target of neighbour discovery, behind 8 octets of ICMPv6 (RFC 4861, 4.3 and 4.4). nft has a name for it since
1.0.8 only, and compares this one with bare numbers."""

SET_KEYS: dict[SetName, SetKey] = {
    SetName.MACS: SetKey("type ifname . ether_addr", ("ifname", "ether_addr")),
    SetName.IPV4: SetKey("type ifname . ipv4_addr", ("ifname", "ipv4_addr")),
    SetName.IPV6: SetKey("type ifname . ipv6_addr", ("ifname", "ipv6_addr")),
    SetName.TARGETS: SetKey(f"typeof iifname . {_TARGET}", ("ifname", "integer")),
}


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


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a shared chain."""

    name: str
    text: str

    @property
    def comment(self) -> str:
        """Its mark in the kernel: which rules are there is read back by these. Another text has another mark, so an
        agent finds what an older one loaded.
        """
        return f"{self.name} {hashlib.sha256(self.text.encode()).hexdigest()[:8]}"


def _drop(counter: CounterName) -> str:
    return f'counter name "{counter}" drop'


# Link-local addresses are the guest's to choose (RFC 7217): the link has two ends, so there is nobody else to be.
_NOT_ITS_OWN = (
    f"iifname . {_TARGET} != @{SetName.TARGETS} @th,64,64 != 0xfe80000000000000 {_drop(CounterName.NEIGHBOUR)}"
)

SHARED_CHAINS: dict[str, tuple[Rule, ...]] = {
    "guest_arp": (
        Rule("ethernet-ipv4", f"arp htype != 1 {_drop(CounterName.OTHER)}"),
        Rule("protocol", f"arp ptype != ip {_drop(CounterName.OTHER)}"),
        Rule("sender-mac", f"iifname . arp saddr ether != @{SetName.MACS} {_drop(CounterName.ARP)}"),
        Rule("probe", "arp operation request arp saddr ip 0.0.0.0 accept"),
        Rule("sender-address", f"iifname . arp saddr ip != @{SetName.IPV4} {_drop(CounterName.ARP)}"),
        Rule("own", "accept"),
    ),
    "guest_ipv4": (
        Rule("dhcp-client", "ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept"),
        Rule("source", f"iifname . ip saddr != @{SetName.IPV4} {_drop(CounterName.IPV4)}"),
        Rule("dhcp-server", f"udp sport 67 {_drop(CounterName.DHCP)}"),
        Rule("redirect", f"icmp type redirect {_drop(CounterName.REDIRECT)}"),
        Rule("own", "accept"),
    ),
    "guest_ipv6": (
        Rule("router", f"icmpv6 type nd-router-advert {_drop(CounterName.ROUTER)}"),
        Rule("redirect", f"icmpv6 type nd-redirect {_drop(CounterName.REDIRECT)}"),
        Rule("dhcp-server", f"udp sport 547 {_drop(CounterName.DHCP)}"),
        Rule("claim", f"icmpv6 type nd-neighbor-advert {_NOT_ITS_OWN}"),
        Rule("duplicate-probe", f"ip6 saddr :: icmpv6 type nd-neighbor-solicit {_NOT_ITS_OWN}"),
        Rule(
            "unspecified",
            "ip6 saddr :: icmpv6 type { nd-neighbor-solicit, nd-router-solicit, mld-listener-report, "
            "mld2-listener-report } accept",
        ),
        Rule(
            "link-local",
            "ip6 saddr fe80::/10 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, "
            "mld-listener-report, mld-listener-done, mld2-listener-report, echo-request, echo-reply } accept",
        ),
        Rule("source", f"iifname . ip6 saddr != @{SetName.IPV6} {_drop(CounterName.IPV6)}"),
        Rule("own", "accept"),
    ),
    "guest": (
        Rule("source-mac", f"iifname . ether saddr != @{SetName.MACS} {_drop(CounterName.MAC)}"),
        Rule("arp", "ether type arp goto guest_arp"),
        Rule("ipv4", "ether type ip goto guest_ipv4"),
        Rule("ipv6", "ether type ip6 goto guest_ipv6"),
        Rule("other", _drop(CounterName.OTHER)),
    ),
}
"""In the order in which they have to be made: a chain stands before those that lead to it."""

PORT_RULE = Rule("guest", "goto guest")
"""The only rule of a port's own chain."""

_PORT_CHAIN_PREFIX = "port-"


def chain_name(interface: InterfaceName) -> str:
    """The chain of a port. A name of nft's must begin with a letter, an interface's need not."""
    return _PORT_CHAIN_PREFIX + interface


def interface_of_chain(chain: str) -> str | None:
    """The interface whose chain this is; None when it is a shared one."""
    return chain.removeprefix(_PORT_CHAIN_PREFIX) if chain.startswith(_PORT_CHAIN_PREFIX) else None


@dataclass(frozen=True, slots=True)
class Guard:
    """What the guest behind one port may call itself."""

    interface: InterfaceName
    mac: Mac
    ipv4: frozenset[IPv4Address]
    ipv6: frozenset[IPv6Address]

    def loaded(self) -> "GuardState":
        """What the table holds when it is loaded."""
        return GuardState(ChainState.RIGHT, frozenset({self.mac}), self.ipv4, self.ipv6, targets=self.ipv6)


class ChainState(StrEnum):
    """A port's own chain, as it was read."""

    ABSENT = "absent"
    WRONG = "wrong"
    RIGHT = "right"


@dataclass(frozen=True, slots=True)
class GuardState:
    """What the table holds for one port."""

    chain: ChainState
    macs: frozenset[str]
    ipv4: frozenset[IPv4Address]
    ipv6: frozenset[IPv6Address]
    targets: frozenset[IPv6Address]

    def is_as(self, guard: Guard) -> bool:
        """Whether it lets through what it should and nothing else."""
        return self == guard.loaded()


NOT_GUARDED = GuardState(ChainState.ABSENT, frozenset(), frozenset(), frozenset(), frozenset())
"""A port of which the table holds nothing."""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Our table, as it was read."""

    complete: bool
    """Whether the sets, the counters and the shared chains are there, with their rules in order."""
    guards: dict[str, GuardState]
    """By interface."""
