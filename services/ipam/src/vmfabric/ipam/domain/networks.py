"""Networks: containers that nest, and the active ones that blocks of pools are cut from."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network

from vmfabric.contract.addresses import Family, HostAddress, lies_inside
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.names import ResourceName
from vmfabric.contract.pool import NetworkKind, NetworkSpec

Networks = Mapping[ResourceName, NetworkSpec]
Withheld = Mapping[HostAddress, str]
"""Addresses that no VM can have in their network, and why."""


class ActiveNetworks:
    """Which active network an address lies in, found without looking at all of them."""

    def __init__(self, networks: Iterable[NetworkSpec]) -> None:
        active = [network for network in networks if network.kind is NetworkKind.ACTIVE]
        active.sort(key=lambda network: int(network.prefix.network_address))
        self._of = {family: [each for each in active if Family.of(each.prefix) is family] for family in Family}
        self._firsts = {
            family: [int(each.prefix.network_address) for each in own] for family, own in self._of.items()
        }
        self.withheld: Withheld = {address: why for network in active for address, why in _withheld(network)}

    def around(self, address: HostAddress) -> NetworkSpec | None:
        """The network that the address lies in."""
        family = Family.of(address)
        index = bisect_right(self._firsts[family], int(address)) - 1
        if index < 0:
            return None
        network = self._of[family][index]
        return network if address in network.prefix else None


def check_network(spec: NetworkSpec, networks: Networks) -> None:
    """Refused when it overlaps another network otherwise than by lying in a container."""
    for other in networks.values():
        if other.name != spec.name and other.prefix.overlaps(spec.prefix):
            _check_nesting(spec, other)


def surrounding(address: HostAddress, networks: Networks) -> NetworkSpec | None:
    """The active network that the address lies in, or else the smallest container."""
    found = [network for network in networks.values() if address in network.prefix]
    return max(
        found, key=lambda network: (network.kind is NetworkKind.ACTIVE, network.prefix.prefixlen), default=None
    )


def _withheld(network: NetworkSpec) -> Iterator[tuple[HostAddress, str]]:
    prefix = network.prefix
    is_segment = network.segment or network.gateway is not None
    if is_segment and prefix.num_addresses > 2:
        yield prefix.network_address, f"it is the address of network {prefix} itself"
        if isinstance(prefix, IPv4Network):
            yield prefix.broadcast_address, f"it is the broadcast address of network {prefix}"
    if network.gateway is not None:
        yield network.gateway, "it is the gateway of its network"


def _check_nesting(spec: NetworkSpec, other: NetworkSpec) -> None:
    wanted = f"{spec.kind} network {spec.name} would be {spec.prefix}"
    match spec.kind, other.kind:
        case NetworkKind.ACTIVE, NetworkKind.ACTIVE:
            raise Refused(
                Code.OVERLAP,
                f"{wanted}, which overlaps network {other.name} ({other.prefix}); choose a prefix that no other "
                "active network has",
            )
        case NetworkKind.CONTAINER, NetworkKind.CONTAINER if spec.prefix == other.prefix:
            raise Refused(Code.OVERLAP, f"{wanted}, which container {other.name} is already; one of them is enough")
        case NetworkKind.CONTAINER, NetworkKind.ACTIVE if not lies_inside(other.prefix, spec.prefix):
            raise Refused(
                Code.OVERLAP,
                f"{wanted}, which lies inside of active network {other.name} ({other.prefix}); a container holds "
                "networks, it does not lie in active ones",
            )
        case NetworkKind.ACTIVE, NetworkKind.CONTAINER if not lies_inside(spec.prefix, other.prefix):
            raise Refused(
                Code.OVERLAP,
                f"{wanted}, and container {other.name} ({other.prefix}) would lie inside of it; a container holds "
                "networks, it does not lie in active ones",
            )
