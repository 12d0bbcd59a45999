"""A desired VM in the words of the kernel."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface

from vmfabric.contract.addresses import HostAddress, Mac, Prefix
from vmfabric.contract.cluster import Virtualization
from vmfabric.contract.desired import DesiredVm, PointToPoint, Presence
from vmfabric.contract.names import InterfaceName, VmName
from vmfabric.node_agent.domain import naming
from vmfabric.node_agent.domain.actual import InterfaceAddress, LinkKind
from vmfabric.node_agent.domain.antispoof import Guard

LINK_GROUP = 18600
"""Group of our links (IFLA_GROUP). A link gets it in the message that makes it, the alias only in the next: a link
that has it and no alias is one that we did not finish."""

IPV6_SMALLEST_MTU = 1280
"""Below it the kernel has no IPv6 on a link (RFC 8200, 5)."""

NODE_SYSCTLS: Mapping[str, int] = {"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1}
"""Under /proc/sys/net, for the whole node."""

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
"""For each port. addr_gen_mode 1 makes no link-local address: the gateway's is the only one."""


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
    """The gateway's: the same on every port of every node."""
    guest_mac: Mac
    mtu: int
    addresses: frozenset[InterfaceAddress]
    """The gateway's."""
    sysctls: Mapping[str, int]
    guard: Guard
    prefixes: frozenset[Prefix]
    """The VM's own, which are routed here."""
    presence: Presence
    toward: tuple[HostAddress, ...]
    """Addresses of the node that the guest has left for."""
    generation: int

    @property
    def kind(self) -> LinkKind:
        """What the link is."""
        return LinkKind.TAP if self.guest_interface is None else LinkKind.VETH


def port_of(desired: DesiredVm) -> Port:
    """The port of a VM."""
    interface = naming.interface_name(desired.cluster, desired.vm)
    veth = desired.virtualization is Virtualization.LXD
    ipv6 = desired.mtu >= IPV6_SMALLEST_MTU
    if not isinstance(desired.wiring, PointToPoint):
        raise NotImplementedError(desired.wiring.type)
    gateway = desired.wiring.gateway
    gateways = (gateway.ipv4, gateway.ipv6) if ipv6 else (gateway.ipv4,)
    return Port(
        vm=desired.vm,
        interface=interface,
        guest_interface=naming.guest_interface_name(desired.cluster, desired.vm) if veth else None,
        alias=naming.alias(desired.cluster, desired.vm),
        alternative_name=naming.alternative_name(desired.cluster, desired.vm),
        mac=gateway.mac,
        guest_mac=desired.mac,
        mtu=desired.mtu,
        addresses=frozenset(_gateway(address) for address in gateways),
        sysctls={name: value for name, value in SYSCTLS.items() if ipv6 or name.startswith("ipv4/")},
        guard=Guard(
            interface,
            desired.mac,
            frozenset(address for address in desired.addresses if isinstance(address, IPv4Address)),
            frozenset(address for address in desired.addresses if isinstance(address, IPv6Address)),
            on_segment=not isinstance(desired.wiring, PointToPoint),
            bandwidth=desired.bandwidth,
        ),
        prefixes=frozenset(desired.prefixes()),
        presence=desired.presence,
        toward=desired.toward,
        generation=desired.generation,
    )


def _gateway(address: HostAddress) -> InterfaceAddress:
    # Only the host's own /32 and /128: the VM's addresses are on no subnet. A link-local address is on the link's.
    length = 64 if isinstance(address, IPv6Address) and address.is_link_local else address.max_prefixlen
    return ip_interface(f"{address}/{length}")
