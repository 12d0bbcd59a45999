"""What a guest may send, as the sets and chains that all ports share.

A guest may send from its own MAC address only; IPv4 from its own addresses; IPv6 from its own addresses and from all
of a prefix that is delegated to it, and from link-local ones for neighbour discovery (RFC 4861), duplicate address
detection (RFC 4862), multicast listener reports (RFC 3810), DHCP and echo; as a neighbour it may claim its own
addresses only, at its own MAC address; ARP with its own MAC and IPv4 address, or as a probe for that (RFC 5227). It
may ask a DHCP server, before it has an address too.

It may not be a router, nor a DHCP server: clients take an answer from any port, so nothing gets through to theirs.

Where the link has two ends, link-local addresses are the guest's to choose (RFC 7217): there is nobody else to be.
On a segment that others share it has one, which follows from its MAC address; it may ask by DHCP for itself only, and
it may tell switches where it is by RARP, as hypervisors do after a migration. There it may not call itself the
gateway by VRRP, HSRP, GLBP or ICMP, nor the querier of multicast groups: it would be sent what is others'.
"""

from dataclasses import dataclass

from vmfabric.node_agent.domain.antispoof import CounterName, Rule, SetName, drop


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
_OPTION, _OPTION_MAC = "@th,192,16", "@th,208,48"
"""The first option of a solicitation or an advertisement: its type and length, and what a link-layer address is then
(RFC 4861, 4.6.1)."""
_ROUTER_OPTION, _ROUTER_OPTION_MAC = "@th,64,16", "@th,80,48"
"""The same of a router solicitation."""
_LINK_ADDRESS = "{ 0x0101, 0x0201 }"
"""Of its source or its target, 8 octets long."""
_NONCE = "0x0e01"
"""By which a host knows its own probes (RFC 7527)."""
_RARP_SENDER = "@nh,64,48"
_RARP_TARGET = "@nh,144,48"
"""MAC addresses, laid out as in ARP (RFC 903); nft has no names for those of RARP."""
_DHCP_CLIENT = "@th,288,48"
"""The MAC address for which an address is asked, behind 8 octets of UDP and 28 of others (RFC 2131, 2)."""

SET_KEYS: dict[SetName, SetKey] = {
    SetName.MACS: SetKey("type ifname . ether_addr", ("ifname", "ether_addr")),
    SetName.OCTETS: SetKey(f"typeof iifname . {_OPTION_MAC}", ("ifname", "integer")),
    SetName.IPV4: SetKey("type ifname . ipv4_addr", ("ifname", "ipv4_addr")),
    SetName.IPV6: SetKey("type ifname . ipv6_addr", ("ifname", "ipv6_addr")),
    SetName.PREFIXES: SetKey("type ifname . ipv6_addr; flags interval", ("ifname", "ipv6_addr")),
    SetName.LINK_LOCAL: SetKey("type ifname . ipv6_addr", ("ifname", "ipv6_addr")),
    SetName.TARGETS: SetKey(f"typeof iifname . {_TARGET}", ("ifname", "integer")),
    SetName.PREFIX_TARGETS: SetKey(f"typeof iifname . {_TARGET}; flags interval", ("ifname", "integer")),
}

_NOT_ITS_OWN = f"iifname . {_TARGET} != @{SetName.TARGETS} iifname . {_TARGET} != @{SetName.PREFIX_TARGETS}"
_NOT_LINK_LOCAL = "@th,64,64 != 0xfe80000000000000"
_CLAIM = "icmpv6 type nd-neighbor-advert"
_PROBE = "ip6 saddr :: icmpv6 type nd-neighbor-solicit"

# A rule whose field is missing, in a frame that was cut off or hides its header in a fragment, does not match: what
# is accepted in the end must be readable.
_UNREADABLE = Rule("unreadable", drop(CounterName.OTHER))
_SOURCE_MAC = Rule("source-mac", f"iifname . ether saddr != @{SetName.MACS} {drop(CounterName.MAC)}")
_CUT_OFF = Rule("cut-off", f"meta length < 28 {drop(CounterName.OTHER)}")
_NO_ROUTER = (
    Rule("router", f"icmpv6 type nd-router-advert {drop(CounterName.ROUTER)}"),
    Rule("redirect", f"icmpv6 type nd-redirect {drop(CounterName.REDIRECT)}"),
)

_NO_GATEWAY = (
    Rule("vrrp", f"meta l4proto 112 {drop(CounterName.ROUTER)}"),
    Rule("hsrp-glbp", f"udp dport {{ 1985, 2029, 3222 }} {drop(CounterName.ROUTER)}"),
)

SHARED_CHAINS: dict[str, tuple[Rule, ...]] = {
    "guest_arp": (
        _CUT_OFF,
        Rule("ethernet-ipv4", f"@nh,0,48 != 0x000108000604 {drop(CounterName.OTHER)}"),
        Rule("sender-mac", f"iifname . arp saddr ether != @{SetName.MACS} {drop(CounterName.ARP)}"),
        Rule("probe", f"arp operation request arp saddr ip 0.0.0.0 iifname . arp daddr ip @{SetName.IPV4} accept"),
        Rule("sender-address", f"iifname . arp saddr ip != @{SetName.IPV4} {drop(CounterName.ARP)}"),
        Rule("own", "accept"),
    ),
    "guest_rarp": (
        _SOURCE_MAC,
        _CUT_OFF,
        Rule("reverse-request", f"@nh,0,64 != 0x0001080006040003 {drop(CounterName.OTHER)}"),
        Rule("sender-mac", f"iifname . {_RARP_SENDER} != @{SetName.OCTETS} {drop(CounterName.ARP)}"),
        Rule("target-mac", f"iifname . {_RARP_TARGET} != @{SetName.OCTETS} {drop(CounterName.ARP)}"),
        Rule("own", "accept"),
    ),
    "guest_ipv4": (
        Rule("dhcp-client", "ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept"),
        Rule("source", f"iifname . ip saddr != @{SetName.IPV4} {drop(CounterName.IPV4)}"),
        Rule("dhcp-server", f"udp sport 67 {drop(CounterName.DHCP)}"),
        Rule("to-dhcp-client", f"udp dport 68 {drop(CounterName.DHCP)}"),
        Rule("redirect", f"icmp type redirect {drop(CounterName.REDIRECT)}"),
        Rule("own", "meta l4proto 0-254 accept"),
        _UNREADABLE,
    ),
    # What nft cannot follow could hide a claim: so one option at most, no header between, no fragments (RFC 6980).
    "guest_discovery": (
        Rule("behind-others", f"ip6 nexthdr != icmpv6 {drop(CounterName.NEIGHBOUR)}"),
        Rule("no-router-option", "icmpv6 type nd-router-solicit ip6 length 8 return"),
        Rule(
            "own-router-option",
            f"icmpv6 type nd-router-solicit ip6 length 16 {_ROUTER_OPTION} {_LINK_ADDRESS} "
            f"iifname . {_ROUTER_OPTION_MAC} @{SetName.OCTETS} return",
        ),
        Rule("no-option", "icmpv6 type != nd-router-solicit ip6 length 24 return"),
        Rule(
            "own-option",
            f"icmpv6 type != nd-router-solicit ip6 length 32 {_OPTION} {_LINK_ADDRESS} "
            f"iifname . {_OPTION_MAC} @{SetName.OCTETS} return",
        ),
        Rule("nonce", f"icmpv6 type nd-neighbor-solicit ip6 length 32 {_OPTION} {_NONCE} return"),
        Rule("option", drop(CounterName.NEIGHBOUR)),
    ),
    "guest_ipv6": (
        *_NO_ROUTER,
        Rule(
            "discovery",
            "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } jump guest_discovery",
        ),
        Rule("dhcp-server", f"udp sport 547 {drop(CounterName.DHCP)}"),
        Rule("to-dhcp-client", f"udp dport 546 {drop(CounterName.DHCP)}"),
        Rule("claim", f"{_CLAIM} {_NOT_ITS_OWN} {_NOT_LINK_LOCAL} {drop(CounterName.NEIGHBOUR)}"),
        Rule("duplicate-probe", f"{_PROBE} {_NOT_ITS_OWN} {_NOT_LINK_LOCAL} {drop(CounterName.NEIGHBOUR)}"),
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
        Rule("dhcp-client", "ip6 saddr fe80::/10 ip6 daddr ff02::1:2 udp sport 546 udp dport 547 accept"),
        Rule(
            "source",
            f"iifname . ip6 saddr != @{SetName.IPV6} iifname . ip6 saddr != @{SetName.PREFIXES} "
            f"{drop(CounterName.IPV6)}",
        ),
        Rule("own", "@th,0,8 >= 0 accept"),
        Rule("later-fragment", "meta l4proto 0-254 frag frag-off != 0 accept"),
        _UNREADABLE,
    ),
    "guest": (
        _SOURCE_MAC,
        Rule("arp", "ether type arp goto guest_arp"),
        Rule("ipv4", "ether type ip goto guest_ipv4"),
        Rule("ipv6", "ether type ip6 goto guest_ipv6"),
        Rule("other", drop(CounterName.OTHER)),
    ),
    "guest_segment_ipv6": (
        *_NO_ROUTER,
        *_NO_GATEWAY,
        Rule("querier", f"icmpv6 type mld-listener-query {drop(CounterName.ROUTER)}"),
        Rule(
            "link-local",
            f"ip6 saddr fe80::/10 iifname . ip6 saddr != @{SetName.LINK_LOCAL} {drop(CounterName.IPV6)}",
        ),
        Rule("claim", f"{_CLAIM} {_NOT_ITS_OWN} {drop(CounterName.NEIGHBOUR)}"),
        Rule("duplicate-probe", f"{_PROBE} {_NOT_ITS_OWN} {drop(CounterName.NEIGHBOUR)}"),
        Rule("others", "goto guest"),
    ),
    "guest_segment_dhcp": (
        Rule("fragmented-dhcp", f"ip frag-off & 0x3fff != 0 {drop(CounterName.OTHER)}"),
        Rule("dhcp-of-another", f"iifname . {_DHCP_CLIENT} != @{SetName.OCTETS} {drop(CounterName.MAC)}"),
        Rule("others", "goto guest"),
    ),
    "guest_segment_ipv4": (
        *_NO_GATEWAY,
        Rule("querier", f"igmp type membership-query {drop(CounterName.ROUTER)}"),
        Rule("router", f"icmp type router-advertisement {drop(CounterName.ROUTER)}"),
        Rule("dhcp", "udp dport 67 goto guest_segment_dhcp"),
        Rule("others", "goto guest"),
    ),
    "guest_segment": (
        Rule("ipv6", "ether type ip6 goto guest_segment_ipv6"),
        Rule("ipv4", "ether type ip goto guest_segment_ipv4"),
        Rule("rarp", "ether type 0x8035 goto guest_rarp"),
        Rule("others", "goto guest"),
    ),
}
"""In the order in which they have to be made: a chain stands before those that lead to it."""
