"""How the nodes of each network type are set up, and how their VMs are connected (docs/network-types.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_interface

from vmfabric.contract.addresses import Family, HostAddress
from vmfabric.contract.cluster import ClusterSpec, NetworkType, NodeSpec
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
class Connection:
    """How a VM is connected, and what its guest configures."""

    wiring: Wiring
    guest_addresses: tuple[GuestAddress, ...]


def connect(cluster: ClusterSpec, node: NodeSpec | None, allocated: Sequence[AllocatedAddress]) -> Connection:
    """The connection of a VM with these addresses on this node, which has to be given where the cluster routes to its
    nodes. Refused when no port can have all of them.
    """
    match cluster.type:
        case NetworkType.IP_FABRIC:
            guest = [of_host(each.address, cluster.gateway.of(each.family)) for each in allocated]
            return Connection(PointToPoint(gateway=cluster.gateway), tuple(guest))
        case NetworkType.SWITCHING:
            return Connection(
                Switched(bridge=cluster.bridge.name, vlan=_vlan(allocated)), tuple(map(_in_network, allocated))
            )
        case NetworkType.ROUTING:
            guest = [of_host(each.address, _gateway_on(node, each.family)) for each in allocated]
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


def _vlan(allocated: Sequence[AllocatedAddress]) -> int | None:
    vlans = {each.vlan for each in allocated}
    if len(vlans) > 1:
        where = ", ".join(f"{each.address} in {each.vlan or 'none'}" for each in allocated)
        raise Refused(
            Code.CONFLICT,
            f"the addresses of a VM must be in networks of one VLAN, which its port is in; found {where}: ask for "
            "pools whose networks are in the same VLAN",
        )
    return next(iter(vlans), None)


def _in_network(allocated: AllocatedAddress) -> GuestAddress:
    if allocated.network is None:
        return of_host(allocated.address, None)
    prefix = ip_interface(f"{allocated.address}/{allocated.network.prefixlen}")
    return GuestAddress(prefix=prefix, gateway=allocated.gateway)


def _gateway_on(node: NodeSpec | None, family: Family) -> HostAddress:
    if node is None:
        raise ValueError("the node of a VM in a routing cluster is its gateway, and has to be given")
    if family is Family.IPV4:
        return node.address
    if node.ipv6 is None:
        raise Refused(
            Code.CONFLICT,
            f"node {node.name} has no `ipv6`, the gateway that its VMs need for IPv6; apply it with one, or ask for "
            "IPv4 only",
        )
    return node.ipv6.ip
