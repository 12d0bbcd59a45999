"""Events of nodes."""

from typing import ClassVar

from pydantic import Field

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.model import Fact, Part
from vmfabric.contract.names import ClusterName, NodeName, ResourceName, VmName
from vmfabric.contract.subjects import NODE, Template


class _OfNode(Fact):
    cluster: ClusterName
    node: NodeName


class NodeHeartbeat(_OfNode):
    """The agent of this node is alive. Not kept: the next one says the same."""

    subject_template: ClassVar[Template] = Template("node.heartbeat", NODE)

    addresses: tuple[HostAddress, ...]
    """The node's own addresses, link-local, loopback and gateway addresses left out."""
    vms: int
    """VMs that are wired here."""
    problem: str | None = None
    """Why no VM can work here until somebody acts; None when the node itself is as it should be."""
    vm_problems: dict[VmName, str] = Field(default_factory=dict)
    """What is in the way of VMs that are not as they should be here, of at most 20 of them."""


class NodeJoined(_OfNode):
    """The first heartbeat of a node."""

    subject_template: ClassVar[Template] = Template("node.joined", NODE)


class NodeLost(_OfNode):
    """No heartbeat for too long. Its VMs keep their routes: it may well be forwarding."""

    subject_template: ClassVar[Template] = Template("node.lost", NODE)


class NodeFenced(_OfNode):
    """Said by whoever fences nodes, not by vmfabric: the node does not run, and will not before it has rebooted."""

    subject_template: ClassVar[Template] = Template("node.fenced", NODE)

    fence: ResourceName
    """Its own name, which a cluster may trust."""


class NodeReturned(_OfNode):
    """A lost node is heard again."""

    subject_template: ClassVar[Template] = Template("node.returned", NODE)


class StayingVm(Part):
    """A VM that is not moved."""

    vm: VmName
    reason: str


class NodeDraining(_OfNode):
    """The node is drained, or evacuated when it is lost: how far that is. Said when it changes."""

    subject_template: ClassVar[Template] = Template("node.draining", NODE)

    left: int
    """VMs that are still here, those that are on their way included."""
    moving: int
    staying: tuple[StayingVm, ...]
    """At most 100."""
    fence: ResourceName | None = None
    """What made sure that the node does not run, when it is evacuated."""


class NodeDrained(_OfNode):
    """No VM is here any more: none is wired, routed or announced. Nothing is placed here until `node.undrain`.

    The VMs of a node that was evacuated are ready on others. It may still believe to have some, and lets them go when
    it returns.
    """

    subject_template: ClassVar[Template] = Template("node.drained", NODE)

    fence: ResourceName | None = None
    """What made sure that the node does not run, when it was evacuated."""
