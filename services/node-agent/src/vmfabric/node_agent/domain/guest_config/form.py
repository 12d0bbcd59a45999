"""A desired VM's guest configuration in the form that was asked for."""

from collections.abc import Sequence
from typing import assert_never

from vmfabric.contract.addresses import Family, HostAddress
from vmfabric.contract.desired import DesiredVm
from vmfabric.contract.guest_config import GuestConfig, GuestConfigForm
from vmfabric.contract.iface import GuestAddress
from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.guest_config import cloud_init_v1, cloud_init_v2, lxd
from vmfabric.node_agent.domain.guest_config.interface import GuestInterface


def guest_config(desired: DesiredVm, veth_end: InterfaceName | None) -> GuestConfig | None:
    """What the guest's image reads; None where plain facts are all that is wanted. `veth_end` is None for a TAP."""
    interface = _interface(desired, is_network_card=veth_end is None)
    match desired.guest_config:
        case GuestConfigForm.FACTS:
            return None
        case GuestConfigForm.CLOUD_INIT_V2:
            document = cloud_init_v2.render(interface)
        case GuestConfigForm.CLOUD_INIT_V1:
            document = cloud_init_v1.render(interface)
        case GuestConfigForm.LXD:
            if veth_end is None:  # the scheduler refuses that
                return None
            document = lxd.render(interface, veth_end)
        case _:
            assert_never(desired.guest_config)
    return GuestConfig(form=desired.guest_config, document=document)


def _interface(desired: DesiredVm, *, is_network_card: bool) -> GuestInterface:
    return GuestInterface(
        mac=desired.mac,
        is_network_card=is_network_card,
        mtu=desired.mtu,
        addresses=tuple(it.prefix for it in desired.guest_addresses),
        gateways=_gateways(desired.guest_addresses),
        nameservers=desired.nameservers,
    )


def _gateways(addresses: Sequence[GuestAddress]) -> tuple[HostAddress, ...]:
    """The first of each family: a guest has one default route for each."""
    found: dict[Family, HostAddress] = {}
    for address in addresses:
        if address.gateway is not None:
            found.setdefault(Family.of(address.gateway), address.gateway)
    return tuple(found[family] for family in Family if family in found)
