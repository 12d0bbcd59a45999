"""What a node should have besides its VMs' ports, whatever its network type."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vmfabric.contract.addresses import Mac, Prefix
from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.actual import HostRoute, InterfaceAddress, Link, Proxy
from vmfabric.node_agent.domain.link_guard import LinkGuard

FORWARDING: Mapping[str, int] = {"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1}
"""Under /proc/sys/net, for a node that routes."""


@dataclass(frozen=True, slots=True)
class OwnBridge:
    """A bridge that we make."""

    interface: InterfaceName
    mac: Mac
    addresses: frozenset[InterfaceAddress]
    sysctls: Mapping[str, int]
    guard: LinkGuard
    routes: frozenset[HostRoute]
    """To all that is in it, the VMs' own left out."""


@dataclass(frozen=True, slots=True)
class Uplink:
    """The NIC of a node that routes to a bridge."""

    sysctls: Mapping[str, int]
    guard: LinkGuard


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything of the node's own."""

    sysctls: Mapping[str, int] = field(default_factory=dict)
    """Under /proc/sys/net."""
    bridge: OwnBridge | None = None
    uplink: Uplink | None = None
    proxies: frozenset[Proxy] = frozenset()
    """The node's own addresses that it has to answer for."""
    answers_on: InterfaceName | None = None
    """Where it answers for the addresses of its VMs too."""
    answers_for: frozenset[Prefix] = frozenset()
    """What is behind it: that an address of these is answered for on the uplink is our doing."""
    problems: tuple[str, ...] = ()
    """What is in the way, and what to do."""


def without_carrier(*uplinks: Link) -> str:
    """What to say of an uplink that nothing passes, or of several of which none leads out."""
    names = " and ".join(sorted(link.name for link in uplinks))
    which = f"the uplink {names} has" if len(uplinks) == 1 else f"the uplinks {names} have"
    return f"{which} no carrier: is its cable in, and the switch's port up?"
