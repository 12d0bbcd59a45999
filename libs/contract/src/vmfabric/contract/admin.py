"""Administration: request and reply on NATS micro services (ADR-32).

| subject | request | answer | service |
| --- | --- | --- | --- |
| `cluster.apply` | ApplyCluster | Applied | scheduler |
| `cluster.list` | List | Clusters | scheduler |
| `node.apply` | ApplyNode | Applied | scheduler |
| `node.list` | ListOfCluster | Nodes | scheduler |
| `node.delete` | DeleteNode | Applied | scheduler |
| `node.drain` | DrainNode | Drain | scheduler |
| `node.undrain` | UndrainNode | Drain | scheduler |
| `node.audit` | AuditNode | NodeAudit | scheduler |
| `node.retry` | RetryNode | Retried | scheduler |
| `node.evacuate` | EvacuateNode | Drain | scheduler |
| `vm.get` | GetVm | VmState | scheduler |
| `vm.list` | ListOfCluster | Vms | scheduler |
| `vm.explain` | GetVm | VmExplanation | scheduler |
| `network.apply` | ApplyNetwork | Applied | ipam |
| `network.delete` | DeleteNetwork | Applied | ipam |
| `network.list` | List | Networks | ipam |
| `pool.apply` | ApplyPool | Applied | ipam |
| `pool.delete` | DeletePool | Applied | ipam |
| `pool.list` | ListOfCluster | Pools | ipam |
| `ip.list` | ListOfCluster | Addresses | ipam |
| `ip.explain` | ExplainAddress | Explanation | ipam |
| `ip.audit` | AuditAddresses | AddressAudit | ipam |

An error answer has no body; its header `Nats-Service-Error` is `<code>: <sentence>`, with a code of `errors.Code`.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from vmfabric.contract.addresses import Family, HostAddress, Mac, Prefix
from vmfabric.contract.addressing import Reservation
from vmfabric.contract.cluster import ClusterSpec, NodeSpec
from vmfabric.contract.ip import AllocatedAddress
from vmfabric.contract.model import Part, Request
from vmfabric.contract.names import ClusterName, NodeName, Note, OwnerName, ResourceName, VmName
from vmfabric.contract.node import StayingVm
from vmfabric.contract.placement import PlacementDecision
from vmfabric.contract.pool import NetworkSpec, PoolSpec
from vmfabric.contract.vm import VmSize


class ApplyCluster(Request):
    """Make the cluster so; with `dry_run` only say what would change."""

    spec: ClusterSpec
    dry_run: bool = False


class ApplyNode(Request):
    """Make the node so; with `dry_run` only say what would change."""

    spec: NodeSpec
    dry_run: bool = False


class DrainNode(Request):
    """Place nothing on the node, and move to other nodes what can move."""

    cluster: ClusterName
    node: NodeName
    going_down: bool = False
    """Its sessions will end: announce what is left with local preference 0 (RFC 8326)."""
    parallel: Annotated[int, Field(ge=1, le=64)] = 4
    """How many VMs may be on their way at once."""
    dry_run: bool = False


class EvacuateNode(Request):
    """Place the VMs of a lost node on other nodes. Whoever asks knows that the node does not run any more."""

    cluster: ClusterName
    node: NodeName
    fence: ResourceName
    """How that was made sure, for the record: `ipmi`, `pdu`, `unplugged`."""
    dry_run: bool = False


class UndrainNode(Request):
    """Place VMs on the node again. What is on its way goes on."""

    cluster: ClusterName
    node: NodeName
    dry_run: bool = False


class DeleteNode(Request):
    """Forget a node that has no VMs and is not heard; with `dry_run` only say whether it can be."""

    cluster: ClusterName
    node: NodeName
    gone: bool = False
    """It will never run again as it was: what it had of VMs that were evacuated is taken for let go."""
    dry_run: bool = False


class ApplyNetwork(Request):
    """Make the network so; with `dry_run` only say what would change."""

    spec: NetworkSpec
    dry_run: bool = False


class ApplyPool(Request):
    """Make the pool so; with `dry_run` only say what would change."""

    spec: PoolSpec
    dry_run: bool = False


class DeletePool(Request):
    """Forget a pool of which nothing is held, rests or is reserved; with `dry_run` only say whether it can be."""

    name: ResourceName
    dry_run: bool = False


class DeleteNetwork(Request):
    """Forget a network that no block of a pool is cut from; with `dry_run` only say whether it can be."""

    name: ResourceName
    dry_run: bool = False


class List(Request):
    """Everything of a kind."""


class ListOfCluster(Request):
    """Everything of a kind, of one cluster or of all."""

    cluster: ClusterName | None = None
    after: str = ""
    """Only names behind this one: the `next` of the last page."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 500


class GetVm(Request):
    """One VM."""

    cluster: ClusterName
    vm: VmName


class ExplainAddress(Request):
    """What is known of an address."""

    address: HostAddress


class Change(StrEnum):
    """What an apply or a deletion did, or would do."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    DELETED = "deleted"


class Applied(Part):
    """The result of an apply or a deletion."""

    kind: str
    name: str
    change: Change
    dry_run: bool
    fields: tuple[str, ...] = ()
    """The fields that differ."""


class Clusters(Part):
    """All clusters; passwords are left out."""

    clusters: tuple[ClusterSpec, ...]


class NodeState(StrEnum):
    """Whether a node is heard."""

    APPLIED = "applied"
    """Named by an operator, never heard."""
    JOINED = "joined"
    LOST = "lost"


class Used(Part):
    """What VMs take of a node."""

    cpu: int
    memory_mb: int
    disk_gb: int


class DrainState(Part):
    """A drain under way, or done."""

    since: datetime
    going_down: bool
    parallel: int
    fence: str | None = None
    """What made sure that the node does not run, when it is evacuated."""
    drained: bool
    """No VM is here any more."""


class Drain(Part):
    """What a drain, an evacuation or its end does."""

    cluster: ClusterName
    node: NodeName
    change: Change
    dry_run: bool
    vms: int
    """VMs that are here now."""
    staying: tuple[StayingVm, ...] = ()
    """Those of them that will not move by themselves, at most 100."""


class NodeStatus(Part):
    """A node and what its VMs take of it."""

    spec: NodeSpec
    state: NodeState
    heard_at: datetime | None = None
    problem: str | None = None
    """Why no VM can work there, by its node-agent: nothing is placed there."""
    drain: DrainState | None = None
    used: Used
    vms: int


class Nodes(Part):
    """Nodes, in the order of their names."""

    nodes: tuple[NodeStatus, ...]


class VmPhase(StrEnum):
    """Where a VM is in its life."""

    ALLOCATING = "allocating"
    WIRING = "wiring"
    READY = "ready"
    PREPARING = "preparing"
    """Ready, and its migration's target is being wired."""
    MOVING = "moving"
    """Ready, and its guest is being moved."""
    SWITCHING = "switching"
    """The guest runs on the target, which is to be announced."""
    LEAVING = "leaving"
    """The source is to let go."""
    SETTLING = "settling"
    """The target's routes are to have the normal preference."""
    RETURNING = "returning"
    """A migration has failed: ready on the source, the target is to let go."""
    WITHDRAWING = "withdrawing"
    UNWIRING = "unwiring"
    RELEASING = "releasing"


class VmState(Part):
    """A VM as the scheduler knows it."""

    cluster: ClusterName
    vm: VmName
    node: NodeName
    generation: int
    phase: VmPhase
    size: VmSize
    mac: Mac
    addresses: tuple[AllocatedAddress, ...]
    other_node: NodeName | None = None
    """During a migration, the node that it is to go to or has just left."""
    waiting_for: str | None = None
    """The fact that comes next; None when the VM is ready."""
    since: datetime
    """When it came into this phase."""
    decision: PlacementDecision | None = None
    """Why a node was chosen for it when that was last done; in the answer of `vm.get` only. None when it was done by
    an older scheduler."""


class Vms(Part):
    """VMs, in the order of cluster and name."""

    vms: tuple[VmState, ...]
    next: str | None = None
    """Give it as `after` for the next page."""


class Networks(Part):
    """All networks."""

    networks: tuple[NetworkSpec, ...]


class Usage(Part):
    """How full a pool is, in addresses. For IPv6 the numbers are often larger than 2**53."""

    total: int
    """That can be given at all: without what is excluded, gateways, and what lies outside of ranges."""
    allocated: int
    quarantined: int
    reserved: int = 0
    """Kept for somebody, and neither held by a VM nor resting."""
    free: int


class PoolUsage(Part):
    """A pool and how full it is, for each family that it has."""

    spec: PoolSpec
    usage: dict[Family, Usage]


class Pools(Part):
    """Pools, in the order of their names."""

    pools: tuple[PoolUsage, ...]


class AddressRecord(Part):
    """An address that is held, rests, or is reserved."""

    address: HostAddress
    prefix: Prefix | None = None
    """What goes with it, where its pool gives whole prefixes."""
    pool: ResourceName
    cluster: ClusterName
    vm: VmName | None = None
    """Who holds it, or held it while it rests; None while it is reserved only. The same holds for the next two."""
    node: NodeName | None = None
    generation: int | None = None
    state: str
    """allocated, releasing, quarantined or reserved."""
    since: datetime
    free_at: datetime | None = None
    """When the quarantine, or the hold of an address that is reserved only, ends."""
    reservation: Reservation | None = None
    """For whom it is kept, whether a VM has it or not."""


class Addresses(Part):
    """Addresses, in order."""

    addresses: tuple[AddressRecord, ...]
    next: str | None = None


class HistoryEntry(Part):
    """One thing that happened to an address."""

    at: datetime
    what: str
    """allocated, released, freed; reserved, renewed, unreserved, expired."""
    cluster: ClusterName
    vm: VmName | None = None
    """Whose it became or ceased to be; of a reservation, the VM that may have it, if one may."""
    node: NodeName | None = None
    generation: int | None = None
    owner: OwnerName | None = None
    """For whom it was reserved."""
    note: Note = ""
    prefix: Prefix | None = None
    """What went with it, where its pool gave whole prefixes."""


class Explanation(Part):
    """What is known of an address, from the network it lies in to who had it."""

    address: HostAddress
    verdict: str
    """One sentence."""
    network: ResourceName | None = None
    pool: ResourceName | None = None
    record: AddressRecord | None = None
    history: tuple[HistoryEntry, ...]
    """Newest first, at most 100."""
