"""Events of the hypervisor's side."""

from typing import ClassVar

from vmfabric.contract.model import Fact
from vmfabric.contract.names import ClusterName, NodeName, VmName
from vmfabric.contract.subjects import VM_ON_NODE, Template


class GuestRunning(Fact):
    """The guest runs on this node."""

    subject_template: ClassVar[Template] = Template("guest.running", VM_ON_NODE)

    cluster: ClusterName
    vm: VmName
    node: NodeName
