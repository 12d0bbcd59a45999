"""Frames that a guest may send, and those that it may not."""

from dataclasses import dataclass
from typing import Any

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import ARP, LLC, STP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

OWN, OTHER, ROUTER = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:fe"
OWN_IPV4, OTHER_IPV4, ROUTER_IPV4 = "10.0.0.1", "10.0.0.2", "10.0.0.254"
OWN_IPV6, OTHER_IPV6, ROUTER_IPV6 = "2001:db8::1", "2001:db8::2", "fe80::1"
OWN_PREFIX, LEADS_TO_PREFIX = "2001:db8:0:7::/64", "2001:db8:0:7::1"
IN_PREFIX, BESIDE_PREFIX = "2001:db8:0:7:1234::5", "2001:db8:0:8::"
OWN_LINK_LOCAL, OTHER_LINK_LOCAL = "fe80::ff:fe00:1", "fe80::ff:fe00:2"
NOBODY = "00:00:00:00:00:00"
ALL = "ff:ff:ff:ff:ff:ff"


@dataclass(frozen=True)
class Frame:
    """What the guest sends."""

    name: str
    octets: bytes
    alone: str | None
    """The counter of what drops it where the guest is alone on its link; None: it arrives."""
    on_segment: str | None
    """The same where others are on its link."""


SAME = "same"


def _frame(
    name: str,
    layers: Packet | bytes,
    dropped: str | None,
    *,
    on_segment: str | None = SAME,
    source: str = OWN,
    to: str = ROUTER,
    kind: int | None = None,
) -> Frame:
    head = Ether(src=source, dst=to) if kind is None else Ether(src=source, dst=to, type=kind)
    return Frame(name, bytes(head / layers), dropped, dropped if on_segment == SAME else on_segment)


def _arp(operation: int, mac: str, address: str, target: str, **fields: Any) -> Packet:
    return ARP(op=operation, hwsrc=mac, psrc=address, hwdst=NOBODY, pdst=target, **fields)


def _rarp(sender: str, target: str) -> bytes:
    return bytes(ARP(op=3, hwsrc=sender, psrc="0.0.0.0", hwdst=target, pdst="0.0.0.0"))


_TO_ALL_ROUTERS = IP(src=OWN_IPV4, dst="224.0.0.2", ttl=1)
_TO_ALL_ROUTERS_IPV6 = IPv6(src=OWN_IPV6, dst="ff02::2", hlim=1)
_ASKS_FOR_GROUPS = bytes([0x11, 100, 0xEE, 0x9B, 0, 0, 0, 0])
_ASKS_FOR_GROUPS_IPV6 = bytes([130, 0, 0, 0, 0x27, 0x10, 0, 0, *bytes(16)])
_DATA = UDP(sport=9, dport=9) / Raw(b"data")
_ADVERT = ICMPv6ND_RA() / Raw(bytes(8))
_OFFERS = BOOTP(op=2) / DHCP(options=[("message-type", "offer"), "end"])
_ALL_NODES = "33:33:00:00:00:01"


_NONCE = Raw(bytes([14, 1, 1, 2, 3, 4, 5, 6]))


def _asks_for(mac: str) -> Packet:
    return BOOTP(chaddr=bytes.fromhex(mac.replace(":", ""))) / DHCP(options=[("message-type", "discover"), "end"])


def _claim(target: str, source: str = OWN_IPV6, *, is_router: int = 0) -> Packet:
    return IPv6(src=source, dst="ff02::1") / ICMPv6ND_NA(tgt=target, R=is_router, S=0, O=1)


def _at(mac: str) -> Packet:
    return ICMPv6NDOptDstLLAddr(lladdr=mac)


def _asks_from(mac: str) -> Packet:
    return IPv6(src=OWN_IPV6, dst="ff02::1:ff00:1") / ICMPv6ND_NS(tgt=ROUTER_IPV6) / ICMPv6NDOptSrcLLAddr(lladdr=mac)


def _asks_router_from(mac: str) -> Packet:
    return IPv6(src=OWN_LINK_LOCAL, dst="ff02::2") / ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr=mac)


def _probe(target: str) -> Packet:
    return IPv6(src="::", dst="ff02::1:ff00:1") / ICMPv6ND_NS(tgt=target)


GOOD = (
    _frame("IPv4 from its address", IP(src=OWN_IPV4, dst=OTHER_IPV4) / _DATA, None),
    _frame("IPv6 from its address", IPv6(src=OWN_IPV6, dst=OTHER_IPV6) / _DATA, None),
    _frame("advertisement in its prefix", _claim(IN_PREFIX), None, to=_ALL_NODES),
    _frame("IPv6 from its prefix", IPv6(src=IN_PREFIX, dst=OTHER_IPV6) / _DATA, None),
    _frame("ARP request", _arp(1, OWN, OWN_IPV4, ROUTER_IPV4), None, to=ALL),
    _frame("ARP reply", _arp(2, OWN, OWN_IPV4, ROUTER_IPV4), None),
    _frame("gratuitous ARP of its address", _arp(1, OWN, OWN_IPV4, OWN_IPV4), None, to=ALL),
    _frame("ARP probe of its address", _arp(1, OWN, "0.0.0.0", OWN_IPV4), None, to=ALL),
    _frame("neighbour solicitation", IPv6(src=OWN_IPV6, dst="ff02::1:ff00:1") / ICMPv6ND_NS(tgt=ROUTER_IPV6), None),
    _frame(
        "the same, from link-local", IPv6(src=OWN_LINK_LOCAL, dst=ROUTER_IPV6) / ICMPv6ND_NS(tgt=ROUTER_IPV6), None
    ),
    _frame("neighbour advertisement", _claim(OWN_IPV6), None, to=_ALL_NODES),
    _frame("the same, of its link-local address", _claim(OWN_LINK_LOCAL, OWN_LINK_LOCAL), None, to=_ALL_NODES),
    _frame("solicitation with its MAC", _asks_from(OWN), None, to="33:33:ff:00:00:01"),
    _frame("advertisement with its MAC", _claim(OWN_IPV6) / _at(OWN), None, to=_ALL_NODES),
    _frame("router solicitation with its MAC", _asks_router_from(OWN), None, to="33:33:00:00:00:02"),
    _frame("DAD probe with a nonce", _probe(OWN_IPV6) / _NONCE, None, to="33:33:ff:00:00:01"),
    _frame("DAD probe of its address", _probe(OWN_IPV6), None, to="33:33:ff:00:00:01"),
    _frame("DAD probe of its link-local address", _probe(OWN_LINK_LOCAL), None, to="33:33:ff:00:00:01"),
    _frame(
        "router solicitation", IPv6(src=OWN_LINK_LOCAL, dst="ff02::2") / ICMPv6ND_RS(), None, to="33:33:00:00:00:02"
    ),
    _frame("echo from link-local", IPv6(src=OWN_LINK_LOCAL, dst=ROUTER_IPV6) / ICMPv6EchoRequest(), None),
    _frame(
        "multicast listener report",
        IPv6(src=OWN_LINK_LOCAL, dst="ff02::16") / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / ICMPv6MLReport2(),
        None,
        to="33:33:00:00:00:16",
    ),
    _frame(
        "DHCP client",
        IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / _asks_for(OWN),
        None,
        to=ALL,
    ),
    _frame("DHCP client renews", IP(src=OWN_IPV4, dst=ROUTER_IPV4) / UDP(sport=68, dport=67) / _asks_for(OWN), None),
    _frame(
        "DHCPv6 client",
        IPv6(src=OWN_LINK_LOCAL, dst="ff02::1:2") / UDP(sport=546, dport=547) / Raw(b"solicit"),
        None,
        to="33:33:00:01:00:02",
    ),
    _frame(
        "IPv4 fragment, not the first", IP(src=OWN_IPV4, dst=OTHER_IPV4, frag=100, proto=17) / Raw(bytes(64)), None
    ),
    _frame(
        "IPv6 fragment, not the first",
        IPv6(src=OWN_IPV6, dst=OTHER_IPV6) / IPv6ExtHdrFragment(nh=17, offset=100) / Raw(bytes(64)),
        None,
    ),
    _frame("RARP of its MAC", _rarp(OWN, OWN), "dropped_other", on_segment=None, to=ALL, kind=0x8035),
)

LAST = bytes(Ether(src=OWN, dst=ROUTER) / IP(src=OWN_IPV4, dst=OTHER_IPV4) / UDP(sport=9, dport=9) / Raw(b"last"))
"""One that arrives, and is none of these."""

LINK_LOCALS = (
    _frame(
        "solicitation from another's link-local",
        IPv6(src=OTHER_LINK_LOCAL, dst="ff02::1:ff00:1") / ICMPv6ND_NS(tgt=ROUTER_IPV6),
        None,
        on_segment="dropped_ipv6",
    ),
    _frame(
        "advertisement of the router's fe80::1",
        _claim(ROUTER_IPV6, is_router=1),
        None,
        on_segment="dropped_neighbour",
        to=_ALL_NODES,
    ),
    _frame(
        "the same, from fe80::1",
        _claim(ROUTER_IPV6, ROUTER_IPV6, is_router=1),
        None,
        on_segment="dropped_ipv6",
        to=_ALL_NODES,
    ),
    _frame("DAD probe of fe80::1", _probe(ROUTER_IPV6), None, on_segment="dropped_neighbour", to="33:33:ff:00:00:01"),
    _frame(
        "DHCPv6 client with another's link-local",
        IPv6(src=OTHER_LINK_LOCAL, dst="ff02::1:2") / UDP(sport=546, dport=547) / Raw(b"solicit"),
        None,
        on_segment="dropped_ipv6",
    ),
)
"""They arrive where the guest is alone with its node, which knows its own address."""

CLAIMS = (
    _frame(
        "VRRP",
        IP(src=OWN_IPV4, dst="224.0.0.18", ttl=255, proto=112) / Raw(bytes(20)),
        None,
        on_segment="dropped_router",
        to="01:00:5e:00:00:12",
    ),
    _frame(
        "VRRP of IPv6", IPv6(src=OWN_IPV6, dst="ff02::12", nh=112) / Raw(bytes(24)), None, on_segment="dropped_router"
    ),
    _frame(
        "VRRP in fragments",
        IP(src=OWN_IPV4, dst="224.0.0.18", flags="MF", proto=112) / Raw(bytes(8)),
        None,
        on_segment="dropped_router",
    ),
    _frame("HSRP", _TO_ALL_ROUTERS / UDP(sport=1985, dport=1985) / Raw(bytes(20)), None, on_segment="dropped_router"),
    _frame(
        "HSRP of IPv6",
        _TO_ALL_ROUTERS_IPV6 / UDP(sport=2029, dport=2029) / Raw(bytes(20)),
        None,
        on_segment="dropped_router",
    ),
    _frame("GLBP", _TO_ALL_ROUTERS / UDP(sport=9, dport=3222) / Raw(bytes(20)), None, on_segment="dropped_router"),
    _frame(
        "IGMP query",
        IP(src=OWN_IPV4, dst="224.0.0.1", ttl=1, proto=2) / Raw(_ASKS_FOR_GROUPS),
        None,
        on_segment="dropped_router",
    ),
    _frame(
        "IGMP query with router alert",
        IP(src=OWN_IPV4, dst="224.0.0.1", proto=2, options=[IPOption_Router_Alert()]) / Raw(_ASKS_FOR_GROUPS),
        None,
        on_segment="dropped_router",
    ),
    _frame(
        "MLD query",
        IPv6(src=OWN_IPV6, dst="ff02::1", nh=58) / Raw(_ASKS_FOR_GROUPS_IPV6),
        None,
        on_segment="dropped_router",
    ),
    _frame(
        "MLD query with hop-by-hop options",
        IPv6(src=OWN_IPV6, dst="ff02::1")
        / IPv6ExtHdrHopByHop(nh=58, options=[RouterAlert()])
        / Raw(_ASKS_FOR_GROUPS_IPV6),
        None,
        on_segment="dropped_router",
    ),
    _frame(
        "ICMP router advertisement",
        IP(src=OWN_IPV4, dst="224.0.0.1", ttl=1) / ICMP(type=9) / Raw(bytes(8)),
        None,
        on_segment="dropped_router",
    ),
    _frame(
        "DHCP for another's MAC",
        IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / _asks_for(OTHER),
        None,
        on_segment="dropped_mac",
        to=ALL,
    ),
)
"""To be the gateway, the querier or another guest: where the guest is alone on its link there is none to be."""

HOSTILE = (
    _frame("MAC of another", IP(src=OWN_IPV4, dst=OTHER_IPV4) / _DATA, "dropped_mac", source=OTHER),
    _frame("MAC of the router", IP(src=OWN_IPV4, dst=OTHER_IPV4) / _DATA, "dropped_mac", source=ROUTER, to=OTHER),
    _frame("IPv4 of another", IP(src="10.0.0.3", dst=OTHER_IPV4) / _DATA, "dropped_ipv4"),
    _frame("IPv4 of the router", IP(src=ROUTER_IPV4, dst=OTHER_IPV4) / _DATA, "dropped_ipv4"),
    _frame("IPv4 from 0.0.0.0", IP(src="0.0.0.0", dst="255.255.255.255") / _DATA, "dropped_ipv4", to=ALL),
    _frame("IPv6 from beside its prefix", IPv6(src=BESIDE_PREFIX, dst=OTHER_IPV6) / _DATA, "dropped_ipv6"),
    _frame("advertisement beside its prefix", _claim(BESIDE_PREFIX), "dropped_neighbour", to=_ALL_NODES),
    _frame("IPv6 of another", IPv6(src="2001:db8::3", dst=OTHER_IPV6) / _DATA, "dropped_ipv6"),
    _frame("IPv6 data from link-local", IPv6(src=OWN_LINK_LOCAL, dst=OTHER_IPV6) / _DATA, "dropped_ipv6"),
    _frame("IPv4-mapped IPv6", IPv6(src="::ffff:10.0.0.1", dst=OTHER_IPV6) / _DATA, "dropped_ipv6"),
    _frame("ARP with another's address", _arp(1, OWN, OTHER_IPV4, ROUTER_IPV4), "dropped_arp", to=ALL),
    _frame("ARP with another's MAC", _arp(1, OTHER, OWN_IPV4, ROUTER_IPV4), "dropped_arp", to=ALL),
    _frame("gratuitous ARP of the router", _arp(1, OWN, ROUTER_IPV4, ROUTER_IPV4), "dropped_arp", to=ALL),
    _frame("ARP reply for the router", _arp(2, OWN, ROUTER_IPV4, OTHER_IPV4), "dropped_arp", to=OTHER),
    _frame("ARP probe of another's address", _arp(1, OWN, "0.0.0.0", OTHER_IPV4), "dropped_arp", to=ALL),
    _frame("ARP of another hardware type", _arp(1, OWN, OWN_IPV4, ROUTER_IPV4, hwtype=6), "dropped_other", to=ALL),
    _frame("ARP of another protocol", _arp(1, OWN, OWN_IPV4, ROUTER_IPV4, ptype=0x86DD), "dropped_other", to=ALL),
    _frame("ARP of another length", _arp(1, OWN, OWN_IPV4, ROUTER_IPV4, plen=16), "dropped_other", to=ALL),
    _frame("ARP that is cut off", bytes(_arp(1, OWN, OWN_IPV4, ROUTER_IPV4))[:20], "dropped_other", kind=0x0806),
    _frame(
        "RARP of another's MAC", _rarp(OTHER, OTHER), "dropped_other", on_segment="dropped_arp", to=ALL, kind=0x8035
    ),
    _frame(
        "solicitation from another's address",
        IPv6(src=OTHER_IPV6, dst="ff02::1:ff00:1") / ICMPv6ND_NS(tgt=ROUTER_IPV6),
        "dropped_ipv6",
    ),
    _frame("advertisement of another's address", _claim(OTHER_IPV6), "dropped_neighbour", to=_ALL_NODES),
    _frame("DAD probe of another's address", _probe(OTHER_IPV6), "dropped_neighbour", to="33:33:ff:00:00:02"),
    _frame("advertisement with another's MAC", _claim(OWN_IPV6) / _at(OTHER), "dropped_neighbour", to=_ALL_NODES),
    _frame("advertisement with everybody's MAC", _claim(OWN_IPV6) / _at(ALL), "dropped_neighbour", to=_ALL_NODES),
    _frame("the same, behind its own", _claim(OWN_IPV6) / _at(OWN) / _at(ALL), "dropped_neighbour", to=_ALL_NODES),
    _frame("the same, behind a nonce", _claim(OWN_IPV6) / _NONCE / _at(ALL), "dropped_neighbour", to=_ALL_NODES),
    _frame("solicitation with another's MAC", _asks_from(OTHER), "dropped_neighbour", to="33:33:ff:00:00:01"),
    _frame("solicitation with everybody's MAC", _asks_from(ALL), "dropped_neighbour", to="33:33:ff:00:00:01"),
    _frame("router solicitation with another's MAC", _asks_router_from(OTHER), "dropped_neighbour", to=ALL),
    _frame(
        "advertisement with destination options",
        IPv6(src=OWN_IPV6, dst="ff02::1") / IPv6ExtHdrDestOpt() / ICMPv6ND_NA(tgt=OWN_IPV6) / _at(ALL),
        "dropped_neighbour",
        to=_ALL_NODES,
    ),
    _frame(
        "advertisement in fragments",
        IPv6(src=OWN_IPV6, dst="ff02::1")
        / IPv6ExtHdrFragment(nh=58, m=1)
        / Raw(bytes([136, 0, 0, 0, 0x20, 0, 0, 0])),
        "dropped_neighbour",
        to=_ALL_NODES,
    ),
    _frame(
        "header hidden in fragments",
        IPv6(src=OWN_IPV6, dst="ff02::1") / IPv6ExtHdrFragment(nh=60, m=1) / Raw(bytes([58, 1, 1, 12, 0, 0, 0, 0])),
        "dropped_other",
        to=_ALL_NODES,
    ),
    _frame("RA", IPv6(src=OWN_LINK_LOCAL, dst="ff02::1") / _ADVERT, "dropped_router", to=_ALL_NODES),
    _frame("RA of the router", IPv6(src=ROUTER_IPV6, dst="ff02::1") / _ADVERT, "dropped_router", to=_ALL_NODES),
    _frame(
        "RA with a fragment header",
        IPv6(src=OWN_LINK_LOCAL, dst="ff02::1") / IPv6ExtHdrFragment(nh=58) / _ADVERT,
        "dropped_router",
        to=_ALL_NODES,
    ),
    _frame(
        "RA with hop-by-hop options",
        IPv6(src=OWN_LINK_LOCAL, dst="ff02::1") / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / _ADVERT,
        "dropped_router",
        to=_ALL_NODES,
    ),
    _frame(
        "RA with destination options",
        IPv6(src=OWN_LINK_LOCAL, dst="ff02::1") / IPv6ExtHdrDestOpt() / _ADVERT,
        "dropped_router",
        to=_ALL_NODES,
    ),
    _frame(
        "RA hidden in fragments",
        IPv6(src=OWN_LINK_LOCAL, dst="ff02::1")
        / IPv6ExtHdrFragment(nh=60, m=1)
        / Raw(bytes([58, 1, 1, 12, 0, 0, 0, 0])),
        "dropped_ipv6",
        to=_ALL_NODES,
    ),
    _frame("ICMPv6 redirect", IPv6(src=OWN_LINK_LOCAL, dst=OTHER_IPV6) / ICMPv6ND_Redirect(), "dropped_redirect"),
    _frame("ICMP redirect", IP(src=OWN_IPV4, dst=OTHER_IPV4) / ICMP(type=5) / Raw(bytes(28)), "dropped_redirect"),
    _frame(
        "DHCP server",
        IP(src=OWN_IPV4, dst="255.255.255.255") / UDP(sport=67, dport=68) / _OFFERS,
        "dropped_dhcp_server",
        to=ALL,
    ),
    _frame(
        "DHCPv6 server",
        IPv6(src=OWN_LINK_LOCAL, dst=OTHER_LINK_LOCAL) / UDP(sport=547, dport=546) / Raw(b"advertise"),
        "dropped_dhcp_server",
    ),
    _frame(
        "DHCP server from another port",
        IP(src=OWN_IPV4, dst="255.255.255.255") / UDP(sport=1067, dport=68) / _OFFERS,
        "dropped_dhcp_server",
        to=ALL,
    ),
    _frame(
        "the same, to one guest",
        IP(src=OWN_IPV4, dst=OTHER_IPV4) / UDP(sport=68, dport=68) / _OFFERS,
        "dropped_dhcp_server",
        to=OTHER,
    ),
    _frame(
        "DHCPv6 server from another port",
        IPv6(src=OWN_LINK_LOCAL, dst=OTHER_LINK_LOCAL) / UDP(sport=1547, dport=546) / Raw(b"advertise"),
        "dropped_dhcp_server",
        to=OTHER,
    ),
    _frame(
        "the same, from its global address",
        IPv6(src=OWN_IPV6, dst=OTHER_LINK_LOCAL) / UDP(sport=546, dport=546) / Raw(b"advertise"),
        "dropped_dhcp_server",
        to=OTHER,
    ),
    _frame("VLAN tag", Dot1Q(vlan=7) / IP(src=OWN_IPV4, dst=OTHER_IPV4) / _DATA, "dropped_other"),
    _frame("priority tag", Dot1Q(vlan=0, prio=7) / IP(src=OWN_IPV4, dst=OTHER_IPV4) / _DATA, "dropped_other"),
    _frame("two VLAN tags", Dot1AD(vlan=7) / Dot1Q(vlan=8) / IP(src=OWN_IPV4, dst=OTHER_IPV4), "dropped_other"),
    Frame(
        "BPDU",
        bytes(Ether(src=OWN, dst="01:80:c2:00:00:00", type=38) / LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP()),
        "dropped_other",
        "dropped_other",
    ),
    _frame("LLDP", Raw(bytes(46)), "dropped_other", to="01:80:c2:00:00:0e", kind=0x88CC),
    _frame("MPLS", Raw(bytes(46)), "dropped_other", kind=0x8847),
    _frame("PPPoE discovery", Raw(bytes(46)), "dropped_other", to=ALL, kind=0x8863),
    _frame(
        "IPv4 that is cut off", bytes(IP(src=OWN_IPV4, dst=OTHER_IPV4) / _DATA)[:24], "dropped_other", kind=0x0800
    ),
    _frame("IPv6 that is cut off", bytes(IPv6(src=OWN_IPV6, dst=OTHER_IPV6))[:12], "dropped_other", kind=0x86DD),
)
