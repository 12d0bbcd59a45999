"""What operators may apply, and what stands in the way."""

from collections.abc import Iterable, Sequence
from itertools import product

from pydantic import BaseModel

from vmfabric.contract.addresses import HostAddress, Prefix
from vmfabric.contract.admin import Applied, Change
from vmfabric.contract.cluster import ClusterSpec, NetworkType, NodeSpec, Upstream, Virtualization
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.names import NodeName
from vmfabric.scheduler.domain.record import VmKey

_FIXED_WITH_VMS = ("type", "virtualization", "gateway", "bridge", "mtu")
"""Fields that every interface of the cluster was made with."""

_LOOPBACK = "lo"
_UPLINK = "uplink (the NIC that has its address)"


def compare(kind: str, wanted: BaseModel, found: BaseModel | None, name: str, *, dry_run: bool) -> Applied:
    """What an apply changes."""
    if found is None:
        return Applied(kind=kind, name=name, change=Change.CREATED, dry_run=dry_run)
    fields = changed_fields(wanted, found)
    change = Change.CHANGED if fields else Change.UNCHANGED
    return Applied(kind=kind, name=name, change=change, dry_run=dry_run, fields=fields)


def changed_fields(wanted: BaseModel, found: BaseModel) -> tuple[str, ...]:
    """The names of the fields that differ."""
    return tuple(name for name in type(wanted).model_fields if getattr(wanted, name) != getattr(found, name))


def check_cluster(
    wanted: ClusterSpec, found: ClusterSpec | None, nodes: Iterable[tuple[NodeSpec, Sequence[HostAddress]]], vms: int
) -> None:
    """Refused when the cluster cannot be so. `nodes` are its own, each with the addresses that it uses itself."""
    for spec, addresses in nodes:
        _check_fields(wanted, spec)
        _check_gateway(wanted, spec.name, addresses)
        _check_reflectors(wanted, addresses)
    if found is None or not vms:
        return
    fixed = [name for name in changed_fields(wanted, found) if name in _FIXED_WITH_VMS]
    if wanted.bgp is not None and found.bgp is not None and wanted.bgp.asn != found.bgp.asn:
        fixed.append("bgp.asn")
    if fixed:
        raise Refused(
            Code.IN_USE,
            f"{', '.join(fixed)} of cluster {wanted.name} cannot change while it has {vms} VMs: "
            "its interfaces and sessions were made with it. Remove the VMs, or apply a cluster of another name",
        )


def check_node(
    wanted: NodeSpec,
    *,
    found: NodeSpec | None,
    cluster: ClusterSpec | None,
    others: Iterable[NodeSpec],
    heard: Sequence[HostAddress],
    vms: int,
    delegated: Sequence[Prefix] = (),
    holder: VmKey | None,
) -> None:
    """Refused when the node cannot be so.

    `heard` are the addresses of its last heartbeat; `delegated` are the whole prefixes of its VMs; `holder` is the VM
    that has its address.
    """
    if cluster is None:
        raise Refused(Code.UNKNOWN_CLUSTER, f"there is no cluster {wanted.cluster}; apply it before its nodes")
    _check_fields(cluster, wanted)
    _check_itself(cluster, wanted)
    _check_gateway(cluster, wanted.name, (wanted.address, *heard))
    for other in others:
        if other.name != wanted.name:
            _check_beside(wanted, other)
    if holder is not None:
        raise Refused(
            Code.CONFLICT,
            f"VM {holder.vm} of cluster {holder.cluster} has the address {wanted.address}; exclude the addresses of "
            "nodes from the pools, and give the node one that no VM has",
        )
    _check_reflectors(cluster, (wanted.address, *heard))
    if found is not None and found.address != wanted.address and vms:
        raise Refused(
            Code.IN_USE,
            f"the address of node {wanted.name} cannot change with {vms} VMs on it: "
            "its BGP sessions would be reset, or its VMs lose their gateway",
        )
    if found is not None and found.uplink != wanted.uplink and vms:
        raise Refused(
            Code.IN_USE,
            f"the uplink of node {wanted.name} cannot change from {found.uplink} to {wanted.uplink} with {vms} VMs "
            "on it: they would be cut off. Move or delete them first",
        )
    if found is not None and vms and cluster.type is NetworkType.ROUTING:
        _check_kept(wanted, found, vms)
        _check_delegated(wanted, delegated)
    if found is not None and vms and _kind(wanted, cluster) is not _kind(found, cluster):
        raise Refused(
            Code.IN_USE,
            f"node {wanted.name} cannot become {_kind(wanted, cluster)} with {vms} VMs on it that were wired as "
            f"{_kind(found, cluster)}; drain it first",
        )


def _check_itself(cluster: ClusterSpec, node: NodeSpec) -> None:
    """Whether its NIC and its own address stay what they are."""
    if cluster.type is not NetworkType.IP_FABRIC and node.uplink in {cluster.bridge.name, _LOOPBACK}:
        found = "the name of the cluster's bridge" if node.uplink == cluster.bridge.name else "the loopback"
        raise Refused(
            Code.INVALID_REQUEST,
            f"the uplink of node {node.name} is {node.uplink}, which is {found}; the uplink is the NIC that has the "
            "node's address",
        )
    for prefix in node.subnets:
        if node.address in prefix:
            raise Refused(
                Code.INVALID_REQUEST,
                f"the address {node.address} of node {node.name} lies in its subnet {prefix}, all of which is "
                "routed to its VMs; name only what the provider sends to it beside its own address",
            )


def _check_beside(wanted: NodeSpec, other: NodeSpec) -> None:
    """Whether the node has what is its own only."""
    subnets = [(it, wanted, other) for it in wanted.subnets] + [(it, other, wanted) for it in other.subnets]
    for prefix, holder, neighbour in subnets:
        if neighbour.address in prefix:
            raise Refused(
                Code.CONFLICT,
                f"{prefix} of node {holder.name} contains {neighbour.address}, the address of node {neighbour.name}",
            )
    if other.address == wanted.address:
        raise Refused(
            Code.CONFLICT,
            f"node {other.name} has the address {wanted.address} already; each node needs one of its own",
        )
    for mine, its in product(wanted.sent, other.sent):
        if mine.version == its.version and mine.overlaps(its):
            raise Refused(
                Code.CONFLICT,
                f"{mine} of node {wanted.name} overlaps {its} of node {other.name}; the provider sends an address to "
                "one node only",
            )


def _check_kept(wanted: NodeSpec, found: NodeSpec, vms: int) -> None:
    """Whether the VMs of a routing node keep their way and their gateway."""
    lost = [str(prefix) for prefix in found.sent if prefix not in wanted.sent]
    if found.ipv6 is not None and wanted.ipv6 != found.ipv6:
        lost = [*(each for each in lost if each != str(found.ipv6.network)), f"the gateway {found.ipv6}"]
    if lost:
        raise Refused(
            Code.IN_USE,
            f"{', '.join(lost)} cannot be taken from node {wanted.name} with {vms} VMs on it, which may have their "
            "addresses by it; delete them first",
        )


def _check_delegated(wanted: NodeSpec, delegated: Sequence[Prefix]) -> None:
    """Whether the whole prefixes of a routing node's VMs still lead to them."""
    if delegated and wanted.upstream is Upstream.ON_LINK:
        raise Refused(
            Code.IN_USE,
            f"the upstream of node {wanted.name} cannot become {wanted.upstream} while its VMs have {delegated[0]}: "
            "a provider that asks for each address by itself finds none of a prefix but the first; delete them first",
        )
    for prefix in delegated:
        if wanted.ipv6 is not None and prefix.overlaps(wanted.ipv6.network):
            raise Refused(
                Code.IN_USE,
                f"the ipv6 of node {wanted.name} cannot become {wanted.ipv6} while a VM of it has {prefix}; choose "
                "another network",
            )


def _kind(node: NodeSpec, cluster: ClusterSpec) -> Virtualization:
    return node.virtualization or cluster.virtualization


def _check_fields(cluster: ClusterSpec, node: NodeSpec) -> None:
    """Whether the node has what its cluster's type needs, and nothing that says nothing there."""
    values = {"uplink": node.uplink, "ipv6": node.ipv6, "subnets": node.subnets}
    given = [name for name, value in values.items() if value]
    needed: list[str] = []
    useless: list[str] = []
    match cluster.type:
        case NetworkType.IP_FABRIC:
            useless = given
        case NetworkType.SWITCHING:
            needed = [_UPLINK] if cluster.bridge.autosetup and node.uplink is None else []
            # An uplink may be named beforehand, and stay so: whose the bridge is, is for the cluster to say.
            useless = [name for name in given if name != "uplink"]
        case NetworkType.ROUTING:
            needed = [_UPLINK] if node.uplink is None else []
            needed += [] if node.sent else ["subnets or ipv6 (what the provider sends to it)"]
    if needed:
        raise Refused(
            Code.INVALID_REQUEST,
            f"node {node.name} of the {cluster.type} cluster {cluster.name} needs {' and '.join(needed)}",
        )
    if useless:
        raise Refused(
            Code.INVALID_REQUEST,
            f"{' and '.join(useless)} of node {node.name} say nothing in cluster {cluster.name}, which is of type "
            f"{cluster.type}; leave them out",
        )


def _check_gateway(cluster: ClusterSpec, node: NodeName, addresses: Iterable[HostAddress]) -> None:
    if cluster.type is not NetworkType.IP_FABRIC:
        return
    for gateway in (cluster.gateway.ipv4, cluster.gateway.ipv6):
        if gateway in addresses:
            raise Refused(
                Code.CONFLICT,
                f"the gateway {gateway} of cluster {cluster.name} is an address that node {node} uses itself; "
                "choose one that no node has, such as 169.254.0.1",
            )


def _check_reflectors(cluster: ClusterSpec, addresses: Iterable[HostAddress]) -> None:
    used = frozenset(addresses)
    for reflector in cluster.bgp.reflectors if cluster.bgp else ():
        if reflector.address in used:
            raise Refused(
                Code.CONFLICT,
                f"{reflector.address} is a reflector of cluster {cluster.name}, and an address of one of its nodes",
            )
