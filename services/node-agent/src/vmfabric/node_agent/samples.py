"""Builders that keep tests short."""

from ipaddress import ip_address

from vmfabric.contract.addresses import Family
from vmfabric.contract.cluster import Gateway, Virtualization
from vmfabric.contract.desired import DesiredVm, PointToPoint, Presence
from vmfabric.contract.guest_config import GuestConfigForm
from vmfabric.contract.iface import of_host


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
    dhcp: bool = False,
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
        toward=() if toward is None else (ip_address(toward),),
        virtualization=virtualization,
        wiring=PointToPoint(gateway=near),
        mtu=mtu,
        guest_config=guest_config,
        dhcp=dhcp,
        trace_id=f"{number:032x}",
    )
