"""Builders that keep tests short."""

from ipaddress import ip_address, ip_interface, ip_network

from vmfabric.contract.addresses import Family
from vmfabric.contract.bandwidth import Bandwidth
from vmfabric.contract.cluster import Gateway, Upstream, Virtualization
from vmfabric.contract.desired import (
    DesiredVm,
    PointToPoint,
    Presence,
    RoutingNode,
    SwitchingNode,
    Wiring,
)
from vmfabric.contract.guest_config import GuestConfigForm
from vmfabric.contract.iface import of_host
from vmfabric.node_agent.domain.move_journal import Moment

A_MOMENT = Moment(wall=1e9, since_boot=1e3, boot="this boot")


def a_vm(
    number: int = 1,
    *,
    name: str | None = None,
    presence: Presence = Presence.ROUTED,
    virtualization: Virtualization = Virtualization.KVM,
    addresses: tuple[str, ...] | None = None,
    gateway: Gateway | None = None,
    mtu: int = 1500,
    generation: int | None = None,
    toward: str | None = None,
    guest_config: GuestConfigForm = GuestConfigForm.FACTS,
    bandwidth: Bandwidth | None = None,
    wiring: Wiring | None = None,
    dhcp: bool = False,
    delegated: tuple[str, ...] = (),
) -> DesiredVm:
    """VM `vm<number>` of cluster `msk` on node `n1`, with 10.0.0.0 + number and 2001:db8:: + number."""
    own = (ip_address("10.0.0.0") + number, ip_address("2001:db8::") + number)
    addressed = own if addresses is None else tuple(ip_address(text) for text in addresses)
    near = gateway or Gateway()
    return DesiredVm(
        cluster="msk",
        node="n1",
        vm=name or f"vm{number}",
        generation=generation or number,
        presence=presence,
        mac=f"02:00:00:00:{number // 256:02x}:{number % 256:02x}",
        addresses=addressed,
        guest_addresses=tuple(of_host(address, near.of(Family.of(address))) for address in addressed),
        delegated=tuple(ip_network(text) for text in delegated),
        toward=() if toward is None else (ip_address(toward),),
        virtualization=virtualization,
        wiring=wiring or PointToPoint(gateway=near),
        mtu=mtu,
        bandwidth=bandwidth,
        guest_config=guest_config,
        dhcp=dhcp,
        trace_id=f"{number:032x}",
    )


def a_routing_node(*, upstream: Upstream = Upstream.ROUTED) -> RoutingNode:
    """Node `n1`, 192.0.2.1 on `uplink`, with 10.0.0.0/24 and 2001:db8::/64 for its VMs, which are in `vmbr0`."""
    return RoutingNode(
        cluster="msk",
        node="n1",
        address=ip_address("192.0.2.1"),
        bridge="vmbr0",
        uplink="uplink",
        ipv6=ip_interface("2001:db8::ffff/64"),
        subnets=(ip_network("10.0.0.0/24"),),
        upstream=upstream,
    )


def a_switching_node(*, uplink: str | None = "uplink", confirm_seconds: int = 1) -> SwitchingNode:
    """Node `n1`, 192.0.2.1, whose VMs are in `vmbr0`."""
    return SwitchingNode(
        cluster="msk",
        node="n1",
        address=ip_address("192.0.2.1"),
        bridge="vmbr0",
        uplink=uplink,
        confirm_seconds=confirm_seconds,
    )
