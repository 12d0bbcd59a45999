"""A desired VM in the words of the kernel."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_interface
from typing import assert_never

from vmfabric.contract.addresses import HostAddress, Mac, Prefix, host_prefix
from vmfabric.contract.cluster import Virtualization
from vmfabric.contract.desired import DesiredVm, PointToPoint, Presence, Routed, Switched
from vmfabric.contract.names import InterfaceName, VmName
from vmfabric.node_agent.domain import naming
from vmfabric.node_agent.domain.actual import InterfaceAddress, LinkKind
from vmfabric.node_agent.domain.antispoof import Guard

LINK_GROUP = 18600
"""Group of our links (IFLA_GROUP). A link gets it in the message that makes it, the alias only in the next: a link
that has it and no alias is one that we did not finish."""

IPV6_SMALLEST_MTU = 1280
"""Below it the kernel has no IPv6 on a link (RFC 8200, 5)."""

SYSCTLS: Mapping[str, int] = {
    "ipv4/forwarding": 1,
    "ipv4/rp_filter": 1,
    "ipv4/proxy_arp": 0,
    "ipv6/disable_ipv6": 0,
    "ipv6/forwarding": 1,
    "ipv6/accept_ra": 0,
    "ipv6/addr_gen_mode": 1,
    "ipv6/accept_dad": 0,
}
"""For each link that VMs are routed to. addr_gen_mode 1 makes no link-local address: the gateway's is the only
one."""

_SYSCTLS_IN_A_BRIDGE: Mapping[str, int] = {"ipv6/disable_ipv6": 1}
"""The port itself takes no part in what passes: nobody can speak to the node on it."""


@dataclass(frozen=True, slots=True)
class Port:
    """Everything that the kernel should have for one VM."""

    vm: VmName
    interface: InterfaceName
    guest_interface: InterfaceName | None
    """The other end of a veth; None for a TAP."""
    alias: str
    alternative_name: str | None
    mac: Mac
    """The gateway's: the same on every port of every node. In a bridge: the port's own."""
    guest_mac: Mac
    mtu: int
    bridge: InterfaceName | None
    """The bridge that it is a port of."""
    isolated: bool
    """Whether it reaches the others of its bridge only through the node."""
    vlan: int | None
    addresses: frozenset[InterfaceAddress]
    """The gateway's; none in a bridge."""
    sysctls: Mapping[str, int]
    guard: Guard
    prefixes: frozenset[Prefix]
    """The VM's own: of each address, and those that are delegated around one."""
    led_by: Mapping[Prefix, HostAddress]
    """By which of its addresses a delegated prefix is reached: the node asks no neighbour for any other."""
    routed_to: InterfaceName | None
    """Where routes to them lead; None: the node has none, since the VM is on a segment with its gateway."""
    presence: Presence
    toward: tuple[HostAddress, ...]
    """Addresses of the node that the guest has left for."""
    generation: int

    @property
    def kind(self) -> LinkKind:
        """What the link is."""
        return LinkKind.TAP if self.guest_interface is None else LinkKind.VETH


@dataclass(frozen=True, slots=True)
class _Wired:
    """In what the ports of the network types differ."""

    interface: InterfaceName
    mac: Mac
    addresses: frozenset[InterfaceAddress] = frozenset()
    sysctls: Mapping[str, int] = field(default_factory=lambda: _SYSCTLS_IN_A_BRIDGE)
    bridge: InterfaceName | None = None
    isolated: bool = False
    vlan: int | None = None
    routed_to: InterfaceName | None = None


def port_of(desired: DesiredVm) -> Port:
    """The port of a VM."""
    wired = _wired(desired)
    veth = desired.virtualization is Virtualization.LXD
    ipv6 = _has_ipv6(desired)
    return Port(
        vm=desired.vm,
        interface=wired.interface,
        guest_interface=naming.guest_interface_name(desired.cluster, desired.vm) if veth else None,
        alias=naming.alias(desired.cluster, desired.vm),
        alternative_name=naming.alternative_name(desired.vm, wired.interface),
        mac=wired.mac,
        guest_mac=desired.mac,
        mtu=desired.mtu,
        bridge=wired.bridge,
        isolated=wired.isolated,
        vlan=wired.vlan,
        addresses=wired.addresses,
        sysctls={name: value for name, value in wired.sysctls.items() if ipv6 or name.startswith("ipv4/")},
        guard=Guard(
            wired.interface,
            desired.mac,
            frozenset(address for address in desired.addresses if isinstance(address, IPv4Address)),
            frozenset(address for address in desired.addresses if isinstance(address, IPv6Address)),
            delegated=frozenset(prefix for prefix in desired.delegated if isinstance(prefix, IPv6Network)),
            on_segment=not isinstance(desired.wiring, PointToPoint),
            asks_node=not isinstance(desired.wiring, Switched),
            bandwidth=desired.bandwidth,
        ),
        prefixes=frozenset({*map(host_prefix, desired.addresses), *desired.delegated}),
        led_by={
            prefix: address for prefix in desired.delegated for address in desired.addresses if address in prefix
        },
        routed_to=wired.routed_to,
        presence=desired.presence,
        toward=desired.toward,
        generation=desired.generation,
    )


def interface_of(desired: DesiredVm) -> InterfaceName:
    """The host's side of a VM's link."""
    return _wired(desired).interface


def _wired(desired: DesiredVm) -> _Wired:
    match desired.wiring:
        case PointToPoint(gateway=gateway):
            interface = naming.interface_name(desired.cluster, desired.vm)
            gateways = (gateway.ipv4, gateway.ipv6) if _has_ipv6(desired) else (gateway.ipv4,)
            addresses = frozenset(_gateway(address) for address in gateways)
            return _Wired(interface, gateway.mac, addresses, SYSCTLS, routed_to=interface)
        case Switched(bridge=bridge, vlan=vlan):
            name = naming.port_name(desired.cluster, desired.vm)
            return _Wired(name, naming.port_mac(desired.mac), bridge=bridge, vlan=vlan)
        case Routed(bridge=bridge):
            name = naming.port_name(desired.cluster, desired.vm)
            return _Wired(name, naming.port_mac(desired.mac), bridge=bridge, isolated=True, routed_to=bridge)
        case _:
            assert_never(desired.wiring)


def _has_ipv6(desired: DesiredVm) -> bool:
    return desired.mtu >= IPV6_SMALLEST_MTU


@lru_cache(maxsize=100)
def _gateway(address: HostAddress) -> InterfaceAddress:
    # Only the host's own /32 and /128: the VM's addresses are on no subnet. A link-local address is on the link's.
    length = 64 if isinstance(address, IPv6Address) and address.is_link_local else address.max_prefixlen
    return ip_interface(f"{address}/{length}")
