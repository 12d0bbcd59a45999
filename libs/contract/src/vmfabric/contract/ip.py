"""Events of addresses: what ipam says."""

from typing import Annotated, ClassVar

from pydantic import Field

from vmfabric.contract.addresses import Family, HostAddress, Prefix
from vmfabric.contract.errors import Code
from vmfabric.contract.model import Fact, Part
from vmfabric.contract.names import ClusterName, NodeName, ResourceName, VmName
from vmfabric.contract.subjects import CLUSTER, VM, VM_ON_NODE, Template


class AllocatedAddress(Part):
    """One address of a VM and where it comes from."""

    address: HostAddress
    pool: ResourceName
    network: Prefix | None = None
    """The physical network that it lies in."""
    gateway: HostAddress | None = None
    """That network's own router, where it has one."""
    vlan: int | None = None
    """That network's VLAN, where it has one."""
    prefix: Prefix | None = None
    """All that is routed to the VM with it, where its pool gives whole prefixes."""

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return Family.of(self.address)


class IpAllocated(Fact):
    """The addresses of the VM on this node. They are its own until `ip.released`."""

    subject_template: ClassVar[Template] = Template("ip.allocated", VM_ON_NODE)

    cluster: ClusterName
    vm: VmName
    node: NodeName
    generation: Annotated[int, Field(ge=1)]
    addresses: tuple[AllocatedAddress, ...]


class IpRefused(Fact):
    """ipam cannot give what was asked for, and holds nothing for this VM."""

    subject_template: ClassVar[Template] = Template("ip.refused", VM)

    cluster: ClusterName
    vm: VmName
    generation: Annotated[int, Field(ge=1)]
    code: Code
    message: str


class IpReleased(Fact):
    """The VM holds no address any more; each is in quarantine until it may be given again."""

    subject_template: ClassVar[Template] = Template("ip.released", VM_ON_NODE)

    cluster: ClusterName
    vm: VmName
    node: NodeName
    generation: Annotated[int, Field(ge=1)]
    addresses: tuple[HostAddress, ...]


class IpExhausted(Fact):
    """A pool had no free address when one was wanted."""

    subject_template: ClassVar[Template] = Template("ip.exhausted", CLUSTER)

    cluster: ClusterName
    pool: ResourceName
    family: Family
    node: NodeName | None = None
    """Where the pool has ranges for nodes: the node whose range was full."""
    quarantined: int
    """Addresses that will be free again when their quarantine ends."""
