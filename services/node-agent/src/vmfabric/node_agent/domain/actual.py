"""What was read from the kernel in one pass. No field has a default: what was not read is an error, not empty."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Interface, IPv6Interface

from vmfabric.contract.addresses import HostAddress, Prefix
from vmfabric.node_agent.domain.antispoof import Ruleset

InterfaceAddress = IPv4Interface | IPv6Interface


class LinkKind(StrEnum):
    """The kinds of link that we make."""

    TAP = "tun"
    VETH = "veth"


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
    """The settings of `port.SYSCTLS`, as in `ipv4/forwarding`; those of IPv6 are missing where it has none."""


@dataclass(frozen=True, slots=True)
class HostRoute:
    """A route of the main table with our protocol number."""

    prefix: Prefix
    interface: str
    metric: int
    gateway: HostAddress | None = None
    """None: the interface is the VM's."""


@dataclass(frozen=True, slots=True)
class Actual:
    """The kernel, as far as it concerns us."""

    links: Mapping[str, Link]
    """By name."""
    routes: frozenset[HostRoute]
    sysctls: Mapping[str, int]
    """The settings of `port.NODE_SYSCTLS`."""
    ruleset: Ruleset
