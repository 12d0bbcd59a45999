"""Events of a VM: what is asked for, and what the scheduler says of it."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from vmfabric.contract.addresses import Family, HostAddress, Mac
from vmfabric.contract.bandwidth import Bandwidth
from vmfabric.contract.errors import Code
from vmfabric.contract.guest_config import GuestConfigForm
from vmfabric.contract.ip import AllocatedAddress
from vmfabric.contract.model import Fact, Part, Request, RequestEvent
from vmfabric.contract.names import ClusterName, LabelText, NodeName, ResourceName, VmName
from vmfabric.contract.placement import PlacementDecision
from vmfabric.contract.subjects import VM, Template

Generation = Annotated[int, Field(ge=1)]
"""Raised at each placement; whoever knows a higher one ignores the event."""


class AddressWish(Request):
    """One address that the VM should have."""

    family: Family
    pool: ResourceName | None = None
    """The pool to take it from; without it, the first of the cluster's pools, by name, that has a free address."""
    address: HostAddress | None = None
    """Exactly this address; without it, the lowest free one."""

    @model_validator(mode="after")
    def _family_fits(self) -> "AddressWish":
        if self.address is not None and Family.of(self.address) is not self.family:
            raise ValueError(f"{self.address} is not an {self.family} address")
        return self


class VmSize(Request):
    """What a VM takes from its node."""

    cpu: Annotated[int, Field(ge=1, le=1024)]
    """Virtual CPUs."""
    memory_mb: Annotated[int, Field(ge=16, le=64 * 1024 * 1024)]
    """MiB of memory."""
    disk_gb: Annotated[int, Field(ge=1, le=1024 * 1024)]
    """GiB of disk."""


class GroupKind(StrEnum):
    """What a VM wants of the others of a group."""

    AFFINITY = "affinity"
    """To be on the same node; the first of them on any. VMs on a drained node do not count: they have to leave it."""
    ANTI_AFFINITY = "anti-affinity"
    """To be on a node that has none of them."""


class GroupRule(Request):
    """A group that the VM belongs to. A group is nothing but the VMs of a cluster that name it."""

    group: ResourceName
    kind: GroupKind
    hard: bool = True
    """False: a wish, which gives way when no other node fits. A hard anti-affinity keeps later VMs of the group off
    the node too, whatever they say themselves."""


class VmRequested(VmSize, RequestEvent):
    """Create this VM. The same request again gives the same answer; another one for a live VM is a conflict."""

    subject_template: ClassVar[Template] = Template("vm.requested", VM)

    cluster: ClusterName
    vm: VmName
    addresses: Annotated[tuple[AddressWish, ...], Field(min_length=1, max_length=16)] | None = None
    """The addresses wanted; without it, one of each family that the cluster's pools have for its node."""
    node: NodeName | None = None
    """Only this node will do; without it, placement chooses."""
    guest_config: GuestConfigForm = GuestConfigForm.FACTS
    """In which form `iface.ready` carries the guest's network configuration, beside the plain facts."""
    dhcp: bool = False
    """Answer the guest's DHCP requests with its IPv4 address, for images that cannot be told otherwise."""
    bandwidth: Bandwidth | None = None
    """How much it may send and receive; without it, as much as the node can."""
    labels: Annotated[dict[LabelText, LabelText], Field(max_length=16)] = Field(default_factory=dict)
    """Its node must have all of these."""
    groups: Annotated[tuple[GroupRule, ...], Field(max_length=8)] = ()
    """Where it is to be in relation to other VMs; looked at whenever a node is chosen for it."""
    dry_run: bool = False
    """Only say, by `vm.decided`, which node it would get now and why. Nothing is held."""

    @model_validator(mode="after")
    def _each_address_once(self) -> "VmRequested":
        wished = [wish.address for wish in self.addresses or () if wish.address is not None]
        twice = next((address for address in wished if wished.count(address) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is asked for twice")
        return self

    @model_validator(mode="after")
    def _each_group_once(self) -> "VmRequested":
        names = [rule.group for rule in self.groups]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"group {twice[0]} is named twice; a VM has one rule for a group")
        return self

    @property
    def size(self) -> VmSize:
        """What it takes from its node."""
        return VmSize(cpu=self.cpu, memory_mb=self.memory_mb, disk_gb=self.disk_gb)


class VmDeleteRequested(RequestEvent):
    """Remove this VM and everything that it holds."""

    subject_template: ClassVar[Template] = Template("vm.delete.requested", VM)

    cluster: ClusterName
    vm: VmName


class VmMigrateRequested(RequestEvent):
    """Move this VM to another node without a gap."""

    subject_template: ClassVar[Template] = Template("vm.migrate.requested", VM)

    cluster: ClusterName
    vm: VmName
    node: NodeName | None = None
    """Only this node will do; without it, placement chooses."""


class VmPlaced(Fact):
    """A node is chosen; ipam answers with `ip.allocated` or `ip.refused`."""

    subject_template: ClassVar[Template] = Template("vm.placed", VM)

    cluster: ClusterName
    vm: VmName
    node: NodeName
    generation: Generation
    mac: Mac
    """The guest's own MAC address."""
    addresses: tuple[AddressWish, ...] | None = None
    """As in the request."""


class VmDecided(Fact):
    """The answer to a request with `dry_run`, and all that it does: which node the VM would get now, and why."""

    subject_template: ClassVar[Template] = Template("vm.decided", VM)

    cluster: ClusterName
    vm: VmName
    decision: PlacementDecision


class VmDeleting(Fact):
    """The way back begins. Addresses are released when the node says that nothing of the VM is left there."""

    subject_template: ClassVar[Template] = Template("vm.deleting", VM)

    cluster: ClusterName
    vm: VmName
    node: NodeName
    generation: Generation
    wired: bool
    """False: the desired state of this generation was never written, so no node can have wired it and the addresses
    are released at once. True: they are released when the node says `iface.removed`."""


class VmDeleted(Fact):
    """Nothing of the VM is left."""

    subject_template: ClassVar[Template] = Template("vm.deleted", VM)

    cluster: ClusterName
    vm: VmName
    generation: Generation | None = None
    """None when there was no such VM."""


class StepTimes(Part):
    """Milliseconds from the request to each step of a creation."""

    placed: float
    allocated: float
    wired: float
    announced: float | None = None
    """None where the cluster announces nothing."""


class VmReady(Fact):
    """The network of the VM is ready: wired, and announced where the cluster announces."""

    subject_template: ClassVar[Template] = Template("vm.ready", VM)

    cluster: ClusterName
    vm: VmName
    node: NodeName
    generation: Generation
    addresses: tuple[AllocatedAddress, ...]
    steps_ms: StepTimes


class VmMigrating(Fact):
    """The target of a migration is chosen, and is being wired.

    Whoever moves the guest waits for `iface.ready` of this generation from the target, moves it, and says
    `guest.running` there.
    """

    subject_template: ClassVar[Template] = Template("vm.migrating", VM)

    cluster: ClusterName
    vm: VmName
    source: NodeName
    target: NodeName
    generation: Generation
    """That of the VM on its target."""


class MigrationTimes(Part):
    """Milliseconds from the request to each step of a migration."""

    placed: float
    wired: float
    running: float
    announced: float | None = None
    """None where the cluster announces nothing."""
    left: float
    """The source has let go."""
    settled: float
    """The target's routes, where it has any, have the normal preference."""


class VmMigrated(Fact):
    """The VM is on another node, and nothing of it is left on the one it came from."""

    subject_template: ClassVar[Template] = Template("vm.migrated", VM)

    cluster: ClusterName
    vm: VmName
    source: NodeName | None = None
    """None when it was there already."""
    node: NodeName
    generation: Generation
    addresses: tuple[AllocatedAddress, ...]
    steps_ms: MigrationTimes | None = None
    """None when it was there already."""


class VmFailed(Fact):
    """A request could not be carried out."""

    subject_template: ClassVar[Template] = Template("vm.failed", VM)

    cluster: ClusterName
    vm: VmName
    generation: Generation | None = None
    """None when the request was refused before a node was chosen; a VM that exists is then untouched."""
    step: str
    """Where it ended: request, place, allocate, wire, announce, migrate, withdraw, unwire, release. With `switch`
    nothing has ended: the guest runs on the target of its migration, which takes longer than it should."""
    code: Code
    message: str
    """What was wanted, what was found, what to do."""
    held: tuple[HostAddress, ...] = ()
    """Addresses that are still held because their node has not said that it let go; normally none."""
    refusals: dict[str, str] = Field(default_factory=dict)
    """Why each node was refused, where placement found none; at most 50 of them."""
