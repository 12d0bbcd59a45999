"""What operators may apply, and what stands in the way."""

from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.admin import Applied, Change
from vmfabric.contract.cluster import ClusterSpec, NetworkType, NodeSpec, Virtualization
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.names import NodeName
from vmfabric.scheduler.domain.record import VmKey

_FIXED_WITH_VMS = ("type", "virtualization", "gateway", "bridge", "mtu")
"""Fields that every interface of the cluster was made with."""


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
    wanted: ClusterSpec, found: ClusterSpec | None, nodes: Mapping[NodeName, Sequence[HostAddress]], vms: int
) -> None:
    """Refused when the cluster cannot be so. `nodes` are the addresses that each node uses itself."""
    for node, addresses in nodes.items():
        _check_gateway(wanted, node, addresses)
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
    holder: VmKey | None,
) -> None:
    """Refused when the node cannot be so.

    `heard` are the addresses of its last heartbeat; `holder` is the VM that has its address.
    """
    if cluster is None:
        raise Refused(Code.UNKNOWN_CLUSTER, f"there is no cluster {wanted.cluster}; apply it before its nodes")
    _check_fields(cluster, wanted)
    _check_gateway(cluster, wanted.name, (wanted.address, *heard))
    for other in others:
        if other.name != wanted.name and other.address == wanted.address:
            raise Refused(
                Code.CONFLICT,
                f"node {other.name} has the address {wanted.address} already; each node needs one of its own",
            )
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
    if found is not None and vms and _kind(wanted, cluster) is not _kind(found, cluster):
        raise Refused(
            Code.IN_USE,
            f"node {wanted.name} cannot become {_kind(wanted, cluster)} with {vms} VMs on it that were wired as "
            f"{_kind(found, cluster)}; drain it first",
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
            needed = ["uplink"] if cluster.bridge.autosetup and node.uplink is None else []
            useless = [name for name in given if name != "uplink" or not cluster.bridge.autosetup]
        case NetworkType.ROUTING:
            needed = ["uplink"] if node.uplink is None else []
            needed += [] if node.subnets or node.ipv6 is not None else ["subnets or ipv6"]
    if needed:
        raise Refused(
            Code.INVALID_REQUEST,
            f"node {node.name} of the {cluster.type} cluster {cluster.name} needs {' and '.join(needed)}",
        )
    if useless:
        raise Refused(
            Code.INVALID_REQUEST,
            f"{' and '.join(useless)} of node {node.name} say nothing in cluster {cluster.name} "
            f"({cluster.type}, bridge.autosetup {str(cluster.bridge.autosetup).lower()}); leave them out",
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
