"""What there is to tell, whatever the form."""

from dataclasses import dataclass

from vmfabric.contract.addresses import Family, HostAddress, Mac
from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.actual import InterfaceAddress

NAME: InterfaceName = "eth0"
"""Of the guest's only interface, in the guest."""


@dataclass(frozen=True, slots=True)
class GuestInterface:
    """The guest's only interface. A gateway is on the link, also where it is in none of the guest's networks."""

    mac: Mac
    is_network_card: bool
    """False: the end of a veth. It comes with its name, and must not be looked for by its MAC: netplan wants a
    permanent one since 0.106, and a veth has none."""
    mtu: int
    addresses: tuple[InterfaceAddress, ...]
    """With their masks; at least one."""
    gateways: tuple[HostAddress, ...]
    """At most one of each family, and only of those that there is an address of."""
    nameservers: tuple[HostAddress, ...] = ()

    def gateway_of_first(self, address: InterfaceAddress) -> HostAddress | None:
        """The gateway of its family, for the first address of that family; None for every other."""
        family = Family.of(address)
        first = next(it for it in self.addresses if Family.of(it) is family)
        return next((it for it in self.gateways if address == first and Family.of(it) is family), None)
