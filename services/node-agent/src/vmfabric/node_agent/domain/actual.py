"""What was read from the kernel in one pass. `Actual` has no defaults: what was not read is an error, not empty."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_network

from vmfabric.contract.addresses import HostAddress, Prefix
from vmfabric.node_agent.domain.antispoof import Ruleset
from vmfabric.node_agent.domain.link_guard import Hook

InterfaceAddress = IPv4Interface | IPv6Interface


class LinkKind(StrEnum):
    """The kinds of link that we make."""

    TAP = "tun"
    VETH = "veth"
    BRIDGE = "bridge"


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface, anybody's."""

    index: int
    name: str
    kind: str | None
    """IFLA_INFO_KIND; None for hardware and the loopback."""
    alias: str | None
    alternative_names: frozenset[str]
    group: int
    mac: str | None
    mtu: int
    up: bool
    """Administratively."""
    carrier: bool
    """Whether the other end is there: whoever holds the TAP, or the guest's end of the veth, up."""
    addresses: frozenset[InterfaceAddress]
    sysctls: Mapping[str, int]
    """As in `ipv4/forwarding`; those of IPv6 are missing where it has none."""
    master: str | None = None
    """The bridge that it is a port of, or whatever else holds it."""
    isolated: bool = False
    """As a port of a bridge: nothing passes between it and others that are isolated."""
    over: int | None = None
    """Of a VLAN device: the index of the link that it is over."""
    vlans: frozenset["PortVlan"] = frozenset()
    """As a port of a bridge; they count only while that filters VLANs."""
    bridge: "BridgeSettings | None" = None
    """None: it is no bridge."""
    filtering: "VlanFiltering | None" = None
    """None: it is no bridge, or the kernel cannot filter VLANs."""


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """How a bridge forwards."""

    stp: int
    forward_delay: int
    """In hundredths of a second."""


@dataclass(frozen=True, slots=True)
class VlanFiltering:
    """Whether a bridge keeps VLANs apart."""

    is_on: bool
    untagged: int
    """The VLAN that a port gets with which it joins, for what is not tagged; 0: none."""


@dataclass(frozen=True, slots=True, order=True)
class PortVlan:
    """A VLAN that a port of a bridge is in."""

    number: int
    comes_untagged: bool = False
    """What arrives without a tag is of this VLAN."""
    leaves_untagged: bool = False
    """Its frames leave without a tag."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A neighbour entry by which the node answers for an address that is behind it."""

    address: HostAddress
    interface: str


@dataclass(frozen=True, slots=True)
class HeldAddress:
    """An address of the node's own, with all that has to be kept when it moves to another link."""

    address: InterfaceAddress
    peer: HostAddress | None = None
    """The other end, where there is one: its network is the connected one then."""
    scope: int = 0
    broadcast: IPv4Address | None = None
    metric: int = 0
    """Of its connected route; 0: the kernel's choice."""
    has_no_prefix_route: bool = False
    """Whoever gave the address made its connected route too."""
    is_temporary: bool = False
    """The kernel makes and drops it (RFC 8981)."""

    @property
    def network(self) -> Prefix:
        """What is reached through it."""
        return ip_network((self.peer or self.address.ip, self.address.network.prefixlen), strict=False)

    @property
    def key(self) -> tuple[HostAddress, Prefix]:
        """By which the kernel tells an address of a link from the others."""
        return self.address.ip, self.network


@dataclass(frozen=True, slots=True)
class HeldRoute:
    """A route of the main table over a link of the node's own, with all that has to be kept when it moves."""

    prefix: Prefix
    gateway: HostAddress | None = None
    metric: int = 0
    protocol: int = 4
    scope: int = 0
    source: HostAddress | None = None
    on_link: bool = False
    is_connected: bool = False
    """It belongs to an address."""
    is_plain: bool = True
    """Whether this is all that there is to it: in the main table, and no second next hop, MTU of its own, or
    encapsulation.
    """

    @property
    def key(self) -> tuple[Prefix, int]:
        """A table has one route of each."""
        return self.prefix, self.metric


@dataclass(frozen=True, slots=True)
class Held:
    """What a link of the node's own has, link-local addresses and what the kernel makes by itself left out."""

    addresses: tuple[HeldAddress, ...] = ()
    """As they were given: the first of a network is the one that the node sends from."""
    routes: tuple[HeldRoute, ...] = ()

    def __or__(self, other: "Held") -> "Held":
        """Of two that cannot be on one link, the first."""
        addresses, routes = {it.key for it in self.addresses}, {it.key for it in self.routes}
        return Held(
            (*self.addresses, *(it for it in other.addresses if it.key not in addresses)),
            (*self.routes, *(it for it in other.routes if it.key not in routes)),
        )


@dataclass(frozen=True, slots=True)
class Interest:
    """What of the kernel is to be read besides what always is."""

    sysctls: frozenset[str] = frozenset()
    held_by: frozenset[str] = frozenset()
    """Links whose `Held` is wanted."""

    def __or__(self, other: "Interest") -> "Interest":
        return Interest(self.sysctls | other.sysctls, self.held_by | other.held_by)


NOWHERE = "lo"
"""The interface of routes to what nobody has: of type unreachable (ip-route(8))."""


@dataclass(frozen=True, slots=True)
class HostRoute:
    """A route of the main table with our protocol number."""

    prefix: Prefix
    interface: str
    metric: int
    gateway: HostAddress | None = None
    """None: the interface is the VM's. Else the VM's own address that leads there, or the node to which the guest has
    gone."""


@dataclass(frozen=True, slots=True)
class Actual:
    """The kernel, as far as it concerns us."""

    links: Mapping[str, Link]
    """By name."""
    routes: frozenset[HostRoute]
    sysctls: Mapping[str, int]
    """Those of the node that were asked for, as far as they exist."""
    ruleset: Ruleset
    proxies: frozenset[Proxy]
    held: Mapping[str, Held]
    """Of each link that was asked for."""
    link_guards: Mapping[str, frozenset[tuple[Hook, str]]]
    """By interface: the marks of the rules at its hooks."""
