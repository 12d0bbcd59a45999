"""cloud-init's network configuration of version 1 (docs.cloud-init.io, "Networking config Version 1").

It has no word for a gateway that is on the link and in no network. But ifupdown makes the route to a `gateway` with
`onlink`, and NetworkManager adds a host route to it. A route of `routes` gets neither from ifupdown.
"""

import yaml

from vmfabric.contract.addresses import Family
from vmfabric.node_agent.domain.actual import InterfaceAddress
from vmfabric.node_agent.domain.guest_config.interface import NAME, GuestInterface


def render(interface: GuestInterface) -> str:
    """The text of a file `network-config`."""
    match = {"mac_address": interface.mac} if interface.is_network_card else {}
    physical = {
        "type": "physical",
        "name": NAME,
        **match,
        "mtu": interface.mtu,
        "accept-ra": False,
        "subnets": [_subnet(interface, address) for address in interface.addresses],
    }
    return yaml.dump({"version": 1, "config": [physical]}, Dumper=yaml.CSafeDumper, sort_keys=False)


def _subnet(interface: GuestInterface, address: InterfaceAddress) -> dict[str, object]:
    subnet: dict[str, object] = {
        "type": "static" if Family.of(address) is Family.IPV4 else "static6",
        "address": str(address),
    }
    gateway = interface.gateway_of_first(address)
    if gateway is not None:
        subnet["gateway"] = str(gateway)
    # Not as an element of their own: NetworkManager's renderer of cloud-init 22.4 drops those.
    if interface.nameservers and address == interface.addresses[0]:
        subnet["dns_nameservers"] = [str(nameserver) for nameserver in interface.nameservers]
    return subnet
