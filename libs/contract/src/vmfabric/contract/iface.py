"""Events of a VM's interface: what the node-agent says."""

from typing import Annotated, ClassVar

from pydantic import Field

from vmfabric.contract.addresses import HostAddress, Mac, Prefix
from vmfabric.contract.guest_config import GuestConfig
from vmfabric.contract.model import Fact, Part
from vmfabric.contract.names import ClusterName, InterfaceName, NodeName, VmName
from vmfabric.contract.subjects import NODE, VM_ON_NODE, Template


class GuestAddress(Part):
    """An address as the guest configures it."""

    prefix: Prefix
    """The address with its mask: /32 or /128."""
    gateway: HostAddress
    """On-link next hop of the default route."""


class GuestNetwork(Part):
    """The network configuration of the guest, as plain facts."""

    mac: Mac
    mtu: Annotated[int, Field(ge=576, le=65535)]
    addresses: tuple[GuestAddress, ...]


class IfaceReady(Fact):
    """Wired, and read back from the kernel."""

    subject_template: ClassVar[Template] = Template("iface.ready", VM_ON_NODE)

    cluster: ClusterName
    vm: VmName
    node: NodeName
    generation: Annotated[int, Field(ge=1)]
    interface: InterfaceName
    """The host's side: `<vm>_net0`, or a short stable name where that is over 15 bytes."""
    guest_interface: InterfaceName | None = None
    """The other end of a veth, for the hypervisor to move into the container; None for a TAP."""
    guest: GuestNetwork
    guest_config: GuestConfig | None = None
    """The same in the form that the request asks for; None where that is `facts`."""


class IfaceRemoved(Fact):
    """Nothing of the VM is left in the kernel of this node."""

    subject_template: ClassVar[Template] = Template("iface.removed", VM_ON_NODE)

    cluster: ClusterName
    vm: VmName
    node: NodeName
    generation: Annotated[int, Field(ge=1)]


class IfaceDrifted(Fact):
    """Somebody else changed what is ours on this node; it has been put back."""

    subject_template: ClassVar[Template] = Template("iface.drifted", NODE)

    cluster: ClusterName
    node: NodeName
    vms: tuple[VmName, ...]
    """VMs concerned; empty when it was the node's own setup."""
    repaired: tuple[str, ...]
    """The operations that put it back, in words."""
