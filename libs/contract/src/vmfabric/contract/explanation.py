"""Why is this VM not reachable, and what of this node is not as it should be? Each service says what it finds, in the
order of a VM's way to the core.

| subject | request | answer | service |
| --- | --- | --- | --- |
| `vm.explain` | GetVm | VmExplanation | scheduler, which asks the others |
| `node.audit` | AuditNode | NodeAudit | scheduler, which asks the others |
| `ip.audit` | AuditAddresses | AddressAudit | ipam, which asks the scheduler |
| `iface.explain.<cluster>.<node>` | ExplainOnNode | Findings | node-agent of the node |
| `route.explain.<cluster>.<node>` | ExplainOnNode | Findings | bgp-announcer of the node |
| `route.reflected.<cluster>.<node>` | ShowReflected | Reflected | bgp-announcer of another node |
"""

from vmfabric.contract.addresses import HostAddress, Prefix
from vmfabric.contract.model import Part, Request
from vmfabric.contract.names import ClusterName, NodeName, VmName
from vmfabric.contract.subjects import NODE, Template

IFACE_EXPLAIN = Template("iface.explain", NODE)
ROUTE_EXPLAIN = Template("route.explain", NODE)
ROUTE_REFLECTED = Template("route.reflected", NODE)


class ExplainOnNode(Request):
    """What has this node of the VM?"""

    vm: VmName | None = None
    """None: of every VM what is not right, and what belongs to none."""


class ShowReflected(Request):
    """What do the reflectors tell you of these prefixes, and of all that leads to these next hops?"""

    prefixes: tuple[Prefix, ...]
    next_hops: tuple[HostAddress, ...]


class ReflectedRoute(Part):
    """A reflector's best path to a prefix, as it tells its clients."""

    prefix: Prefix
    next_hop: HostAddress
    local_preference: int


class Reflected(Part):
    """What each reflector tells this node. One that it has no session with is not there."""

    routes: dict[HostAddress, tuple[ReflectedRoute, ...]]


class AuditNode(Request):
    """What of this node is not as it should be?"""

    cluster: ClusterName
    node: NodeName
    repair: bool = False
    """Remove from the node what the bucket wants there of VMs that the scheduler does not know."""


class AuditAddresses(Request):
    """Do ipam and the scheduler agree on every address of a cluster?"""

    cluster: ClusterName
    repair: bool = False
    """Release what is held for VMs that nobody knows any more."""


class Finding(Part):
    """One thing that was looked at."""

    vm: VmName | None = None
    """None in an audit: it belongs to no VM."""
    about: str
    """Where: scheduler, ipam, bucket, node (as a whole), node-agent, kernel, dhcp, bgp-announcer, frr, reflectors."""
    is_right: bool
    sentence: str
    """What is so; when it is not right, what was wanted, and what to do."""


class Findings(Part):
    """In the order in which they depend on each other."""

    findings: tuple[Finding, ...]


class VmExplanation(Part):
    """The whole chain, from what is wanted to what the reflectors tell."""

    cluster: ClusterName
    vm: VmName
    verdict: str
    """Of what is not right, what is nearest to the root, since the rest may follow from it; or that nothing is wrong.
    A node with a problem is nearer than a node-agent that does not answer, and that nearer than missing routes.
    """
    findings: tuple[Finding, ...]


class NodeAudit(Part):
    """What was compared: the scheduler's records, ipam's leases, the bucket, the kernel, FRR and its sessions, and
    what the reflectors tell another node.
    """

    cluster: ClusterName
    node: NodeName
    vms: int
    """That should be here."""
    findings: tuple[Finding, ...]
    """What is not right; none when everything is."""


class AddressAudit(Part):
    """What was compared: ipam's leases, the bucket, the scheduler's records."""

    cluster: ClusterName
    addresses: int
    """That are held or rest."""
    findings: tuple[Finding, ...]
    """What is not right; none when everything is."""
