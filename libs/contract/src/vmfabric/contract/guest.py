"""Events of the hypervisor's side."""

from typing import Annotated, ClassVar

from pydantic import Field

from vmfabric.contract.model import Fact
from vmfabric.contract.names import ClusterName, NodeName, VmName
from vmfabric.contract.subjects import VM_ON_NODE, Template


class GuestRunning(Fact):
    """The guest runs on this node: said when it starts, and at the moment of a live migration."""

    subject_template: ClassVar[Template] = Template("guest.running", VM_ON_NODE)

    cluster: ClusterName
    vm: VmName
    node: NodeName
    generation: Annotated[int, Field(ge=1)] | None = None
    """That of the `iface.ready` which the guest was given. Without it, when it was said decides: only what was said
    after the migration began belongs to it."""
