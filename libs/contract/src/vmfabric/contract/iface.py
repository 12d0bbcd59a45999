"""Events of a VM's interface: what the node-agent says."""

from ipaddress import ip_interface
from typing import Annotated, ClassVar

from pydantic import Field

from vmfabric.contract.addresses import HostAddress, Mac, MaskedAddress
from vmfabric.contract.guest_config import GuestConfig
from vmfabric.contract.model import Fact, Part
from vmfabric.contract.names import ClusterName, InterfaceName, NodeName, VmName
from vmfabric.contract.subjects import NODE, VM_ON_NODE, Template


class GuestAddress(Part):
    """An address as the guest configures it."""

    prefix: MaskedAddress
    """The address with its mask: that of its network in switching clusters; in all others that of the prefix that is
    delegated around it, or /32 or /128."""
    gateway: HostAddress | None = None
    """Next hop of the default route; None where its network has none."""

    @property
    def is_gateway_outside(self) -> bool:
        """Whether it is in no network of the guest's, which must be told then that it is on the link."""
        return self.gateway is not None and self.gateway not in self.prefix.network


def of_host(address: HostAddress, gateway: HostAddress | None) -> GuestAddress:
    """An address that is in no network: /32 or /128."""
    return GuestAddress(prefix=ip_interface(address), gateway=gateway)


class GuestNetwork(Part):
    """The network configuration of the guest, as plain facts."""

    mac: Mac
    mtu: Annotated[int, Field(ge=576, le=65535)]
    addresses: tuple[GuestAddress, ...]
    nameservers: tuple[HostAddress, ...] = ()


class IfaceReady(Fact):
    """Wired, and read back from the kernel."""

    subject_template: ClassVar[Template] = Template("iface.ready", VM_ON_NODE)

    cluster: ClusterName
    vm: VmName
    node: NodeName
    generation: Annotated[int, Field(ge=1)]
    interface: InterfaceName
    """The host's side. In ip-fabric `<vm>_net0`, or a short stable name where that is over 15 bytes; in the other
    types `vnet…`, a stable name too."""
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
