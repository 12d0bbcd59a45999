"""Guests that differ in what they have to be told; the golden files in `golden/guest_config` are named after them."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

from vmfabric.contract.guest_config import GuestConfigForm
from vmfabric.node_agent.domain.guest_config.interface import GuestInterface

GOLDEN = Path(__file__).with_name("golden") / "guest_config"


def an_interface(*addresses: str, gateways: tuple[str, ...], mtu: int = 1500) -> GuestInterface:
    return GuestInterface(
        mac="02:00:00:00:00:01",
        is_network_card=True,
        mtu=mtu,
        addresses=tuple(map(ip_interface, addresses)),
        gateways=tuple(map(ip_address, gateways)),
    )


FABRIC = ("169.254.0.1", "fe80::1")
"""The gateways of an ip-fabric: in no network of the guest's."""

BOTH = an_interface("198.51.100.0/32", "2001:db8:100::/128", gateways=FABRIC)

CASES: dict[str, GuestInterface] = {
    "ipv4_only": an_interface("198.51.100.0/32", gateways=FABRIC[:1]),
    "ipv6_only": an_interface("2001:db8:100::/128", gateways=FABRIC[1:]),
    "both_families": BOTH,
    "several_addresses": an_interface(
        "198.51.100.0/32", "198.51.100.9/32", "2001:db8:100::/128", "2001:db8:100::9/128", gateways=FABRIC
    ),
    "mtu_1450": replace(BOTH, mtu=1450),
    "gateway_in_the_network": an_interface(
        "198.51.100.7/24", "2001:db8:100::7/64", gateways=("198.51.100.1", "2001:db8:100::1")
    ),
    "gateway_of_the_node": an_interface(
        "203.0.113.7/32", "2001:db8:200::7/64", gateways=("192.0.2.10", "2001:db8:200::2")
    ),
    "prefix_of_its_own": an_interface("198.51.100.0/32", "2001:db8:0:7::1/64", gateways=FABRIC),
    "nameservers": replace(BOTH, nameservers=(ip_address("192.0.2.53"), ip_address("2001:db8::53"))),
    "container": replace(BOTH, is_network_card=False),
}


def golden(form: GuestConfigForm, case: str) -> Path:
    return GOLDEN / f"{case}.{form}.yaml"
