"""cloud-init's network configuration of version 2 (docs.cloud-init.io, "Networking config Version 2"), which netplan
takes as it is.
"""

from collections.abc import Mapping

import yaml

from vmfabric.contract.addresses import Family
from vmfabric.node_agent.domain.guest_config.interface import NAME, GuestInterface

_EVERYTHING: Mapping[Family, str] = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}
"""Of a default route. Netplan knows `default` only since 0.104, and cloud-init 22.4 reads it as IPv4's."""


def render(interface: GuestInterface) -> str:
    """The text of a file `network-config`."""
    return yaml.dump(
        {"version": 2, "ethernets": {NAME: _ethernet(interface)}}, Dumper=yaml.CSafeDumper, sort_keys=False
    )


def _ethernet(interface: GuestInterface) -> dict[str, object]:
    match = {"match": {"macaddress": interface.mac}, "set-name": NAME} if interface.is_network_card else {}
    nameservers = [str(address) for address in interface.nameservers]
    return {
        **match,
        "dhcp4": False,
        "dhcp6": False,
        "accept-ra": False,
        "mtu": interface.mtu,
        "addresses": [str(address) for address in interface.addresses],
        "routes": [
            {"to": _EVERYTHING[Family.of(gateway)], "via": str(gateway), "on-link": True}
            for gateway in interface.gateways
        ],
        **({"nameservers": {"addresses": nameservers}} if nameservers else {}),
    }
