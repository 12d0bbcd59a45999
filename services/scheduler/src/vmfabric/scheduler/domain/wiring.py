"""How the nodes of each network type are set up, and how their VMs are connected (docs/network-types.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface

from vmfabric.contract.addresses import Family, HostAddress, Prefix, host_prefix, lies_inside
from vmfabric.contract.cluster import ClusterSpec, NetworkType, NodeSpec, Upstream
from vmfabric.contract.desired import (
    DesiredNode,
    FabricNode,
    PointToPoint,
    Routed,
    RoutingNode,
    Switched,
    SwitchingNode,
    Wiring,
)
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.iface import GuestAddress, of_host
from vmfabric.contract.ip import AllocatedAddress
from vmfabric.contract.names import NodeName
from vmfabric.scheduler.domain.drain import Drain


def desired_node(cluster: ClusterSpec, node: NodeSpec, drain: Drain | None) -> DesiredNode:
    """What the services of the node need to know of it."""
    match cluster.type:
        case NetworkType.IP_FABRIC:
            return _fabric_node(cluster, node, drain)
        case NetworkType.SWITCHING:
            return SwitchingNode(
                cluster=cluster.name,
                node=node.name,
                address=node.address,
                bridge=cluster.bridge.name,
                uplink=node.uplink if cluster.bridge.autosetup else None,
                confirm_seconds=cluster.bridge.confirm_seconds,
            )
        case NetworkType.ROUTING:
            return _routing_node(cluster, node)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What of the nodes counts for how a VM is connected. In an ip-fabric nothing does."""

    node: NodeSpec | None = None
    """The VM's own, which is its gateway where the cluster is of type routing."""
    taken: Mapping[HostAddress, NodeName] = field(default_factory=dict)
    """Addresses that nodes use themselves, where they and VMs are in one segment: where it is of type switching."""


IN_A_FABRIC = Surroundings()


@dataclass(frozen=True, slots=True)
class Connection:
    """How a VM is connected, and what its guest configures."""

    wiring: Wiring
    guest_addresses: tuple[GuestAddress, ...]


def connect(cluster: ClusterSpec, around: Surroundings, allocated: Sequence[AllocatedAddress]) -> Connection:
    """The connection of a VM with these addresses. Refused when no guest, or no port, can have all of them."""
    match cluster.type:
        case NetworkType.IP_FABRIC:
            for each in allocated:
                _check_is_not_the_gateways(each, cluster)
            guest = [_routed(each, cluster.gateway.of(each.family)) for each in allocated]
            return Connection(PointToPoint(gateway=cluster.gateway), tuple(guest))
        case NetworkType.SWITCHING:
            for each in allocated:
                _check_is_a_hosts(each, around.taken)
                _check_is_no_prefix(each)
            return Connection(
                Switched(bridge=cluster.bridge.name, vlan=_vlan(allocated)), tuple(map(_in_network, allocated))
            )
        case NetworkType.ROUTING:
            if around.node is None:
                raise ValueError("the node of a VM in a routing cluster is its gateway, and has to be given")
            guest = [_behind(around.node, each) for each in allocated]
            return Connection(Routed(bridge=cluster.bridge.name), tuple(guest))


def _fabric_node(cluster: ClusterSpec, node: NodeSpec, drain: Drain | None) -> FabricNode:
    bgp = cluster.bgp
    if bgp is None:
        raise ValueError(f"cluster {cluster.name} is an ip-fabric without bgp, which its model refuses")
    return FabricNode(
        cluster=cluster.name,
        node=node.name,
        address=node.address,
        asn=bgp.asn,
        reflectors=bgp.reflectors,
        community=bgp.community,
        timers=bgp.timers,
        password=bgp.password,
        bfd=bgp.bfd,
        graceful_shutdown=drain is not None and drain.going_down,
        gateway=cluster.gateway,
    )


def _routing_node(cluster: ClusterSpec, node: NodeSpec) -> RoutingNode:
    if node.uplink is None:
        raise ValueError(f"routing node {node.name} has no uplink, without which it is not applied")
    return RoutingNode(
        cluster=cluster.name,
        node=node.name,
        address=node.address,
        bridge=cluster.bridge.name,
        uplink=node.uplink,
        ipv6=node.ipv6,
        subnets=node.subnets,
        upstream=node.upstream,
    )


def _check_is_not_the_gateways(allocated: AllocatedAddress, cluster: ClusterSpec) -> None:
    gateway = cluster.gateway.of(allocated.family)
    if gateway in _all_of(allocated):
        raise Refused(
            Code.CONFLICT,
            f"{_found(allocated)} {_is(allocated, gateway)} the gateway of the VMs of cluster {cluster.name}; "
            "exclude that there",
        )


def _all_of(allocated: AllocatedAddress) -> Prefix:
    """What is routed to the VM."""
    return allocated.prefix or host_prefix(allocated.address)


def _found(allocated: AllocatedAddress) -> str:
    return f"{allocated.prefix or allocated.address} of pool {allocated.pool}"


def _is(allocated: AllocatedAddress, address: HostAddress) -> str:
    return "is" if allocated.prefix is None else f"has {address},"


def _check_is_no_prefix(allocated: AllocatedAddress) -> None:
    if allocated.prefix is not None:
        raise Refused(
            Code.CONFLICT,
            f"{allocated.prefix} of pool {allocated.pool} is a prefix, and VMs of a switching cluster are in the "
            "physical network, whose router would have to route it to this one: ask for a pool of single addresses",
        )


def _vlan(allocated: Sequence[AllocatedAddress]) -> int | None:
    """The one that all of them are in."""
    in_each = {each.vlan: _in_vlan(each) for each in allocated}
    if len(in_each) > 1:
        raise Refused(
            Code.CONFLICT,
            f"{' and '.join(in_each.values())}, and a VM has one port, which is in one VLAN; ask for addresses of "
            "pools whose networks have the same",
        )
    return next(iter(in_each), None)


def _in_vlan(allocated: AllocatedAddress) -> str:
    where = "no VLAN" if allocated.vlan is None else f"VLAN {allocated.vlan}"
    return f"{allocated.address} of pool {allocated.pool} is in {where}"


def _in_network(allocated: AllocatedAddress) -> GuestAddress:
    if allocated.network is None:
        return of_host(allocated.address, None)
    prefix = ip_interface(f"{allocated.address}/{allocated.network.prefixlen}")
    return GuestAddress(prefix=prefix, gateway=allocated.gateway)


def _check_is_a_hosts(allocated: AllocatedAddress, taken: Mapping[HostAddress, NodeName]) -> None:
    """A segment has addresses that are no guest's."""
    address, network = allocated.address, allocated.network
    found = f"the address of node {taken[address]}" if address in taken else None
    if network is not None and network.num_addresses > 2:
        if address == network.network_address:
            found = f"the address of network {network} itself"
        elif address.version == 4 and address == network.broadcast_address:
            found = f"the broadcast address of network {network}"
    if found is not None:
        raise Refused(
            Code.CONFLICT,
            f"{address} of pool {allocated.pool} is {found}, which no VM can have; exclude it there, or say that the "
            "network is a `segment` where it is the network's own",
        )


def _behind(node: NodeSpec, allocated: AllocatedAddress) -> GuestAddress:
    """An address that the provider sends to the node."""
    found = _found(allocated)
    gateway = node.address if allocated.family is Family.IPV4 else node.ipv6 and node.ipv6.ip
    if gateway is None:
        raise Refused(
            Code.CONFLICT,
            f"node {node.name} has no `ipv6`, the gateway that its VMs need for IPv6; apply it with one, or ask for "
            "IPv4 only",
        )
    if gateway in _all_of(allocated):
        raise Refused(
            Code.CONFLICT,
            f"{found} {_is(allocated, gateway)} node {node.name}'s own, its VMs' gateway; exclude that there",
        )
    if not any(lies_inside(_all_of(allocated), sent) for sent in node.sent):
        raise Refused(
            Code.CONFLICT,
            f"{found} lies in no subnet of node {node.name}, so the provider does not send it there; give the pool a "
            f"range for {node.name} inside of its subnets",
        )
    if allocated.prefix is not None and node.upstream is not Upstream.ROUTED:
        raise Refused(
            Code.CONFLICT,
            f"{allocated.prefix} of pool {allocated.pool} is a prefix, and the provider of node {node.name} asks for "
            "each address by itself (`upstream` on-link): ask for a pool of single addresses",
        )
    return _routed(allocated, gateway)


def _routed(allocated: AllocatedAddress, gateway: HostAddress | None) -> GuestAddress:
    if allocated.prefix is None:
        return of_host(allocated.address, gateway)
    prefix = ip_interface(f"{allocated.address}/{allocated.prefix.prefixlen}")
    return GuestAddress(prefix=prefix, gateway=gateway)
