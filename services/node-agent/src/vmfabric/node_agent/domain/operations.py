"""What can be done to the kernel, as values that can be compared and read.

`stage` is the order that the kernel wants: routes go before their link, anti-spoofing stands before the link is up.
"""

from dataclasses import dataclass
from typing import ClassVar

from vmfabric.contract.addresses import HostAddress, Mac, Prefix
from vmfabric.contract.dataplane import ROUTE_METRIC
from vmfabric.contract.names import InterfaceName, VmName
from vmfabric.node_agent.domain.actual import InterfaceAddress, LinkKind
from vmfabric.node_agent.domain.antispoof import TABLE, Guard, GuardState
from vmfabric.node_agent.domain.bridge_operations import BridgeOperation, UplinkOperation, VlanOperation
from vmfabric.node_agent.domain.held import MoveOperation
from vmfabric.node_agent.domain.stage import OfLink, Stage


@dataclass(frozen=True, slots=True)
class SetNodeSysctl:
    """A setting of the whole node."""

    stage: ClassVar[Stage] = Stage.NODE
    vm: ClassVar[None] = None

    name: str
    value: int

    def __str__(self) -> str:
        return f"set {self.name} to {self.value}"


@dataclass(frozen=True, slots=True)
class LoadTable:
    """The sets, counters and shared chains of anti-spoofing."""

    stage: ClassVar[Stage] = Stage.GUARD
    vm: ClassVar[None] = None

    def __str__(self) -> str:
        return f"load nftables table netdev {TABLE}"


@dataclass(frozen=True, slots=True)
class _OfPort(OfLink):
    vm: VmName


@dataclass(frozen=True, slots=True)
class RemoveRoute(OfLink):
    """Take a route of ours away."""

    stage: ClassVar[Stage] = Stage.REMOVE_ROUTE

    prefix: Prefix
    metric: int

    def __str__(self) -> str:
        return f"remove route {self.prefix} from {self.interface}"


@dataclass(frozen=True, slots=True)
class RetireRoute(RemoveRoute):
    """The same, once its successor stands: the VM has a route at every moment."""

    stage: ClassVar[Stage] = Stage.RETIRE_ROUTE

    def __str__(self) -> str:
        return f"remove route {self.prefix} from {self.interface}, metric {self.metric}"


@dataclass(frozen=True, slots=True)
class SetDown(OfLink):
    """Nothing passes any more."""

    stage: ClassVar[Stage] = Stage.SET_DOWN

    index: int

    def __str__(self) -> str:
        return f"set {self.interface} down"


@dataclass(frozen=True, slots=True)
class RemoveGuard(_OfPort):
    """Take the port's chain and elements out of the table."""

    stage: ClassVar[Stage] = Stage.REMOVE_GUARD

    found: GuardState

    def __str__(self) -> str:
        return f"remove anti-spoofing of {self.interface}"


@dataclass(frozen=True, slots=True)
class DeleteLink(OfLink):
    """Delete a link of ours, by its index: its name may be another's by now."""

    stage: ClassVar[Stage] = Stage.DELETE_LINK

    index: int

    def __str__(self) -> str:
        return f"delete {self.interface}"


@dataclass(frozen=True, slots=True)
class CreateLink(_OfPort):
    """Make the link, down, with our group."""

    stage: ClassVar[Stage] = Stage.CREATE_LINK

    kind: LinkKind
    guest_interface: InterfaceName | None
    mac: Mac
    guest_mac: Mac
    mtu: int

    def __str__(self) -> str:
        return f"create {'TAP' if self.kind is LinkKind.TAP else 'veth'} {self.interface}"


@dataclass(frozen=True, slots=True)
class RenameLink(OfLink):
    """Give a link of ours its name back. It must be down."""

    stage: ClassVar[Stage] = Stage.CREATE_LINK

    index: int

    def __str__(self) -> str:
        return f"name link {self.index} {self.interface} again"


@dataclass(frozen=True, slots=True)
class SetAlias(OfLink):
    """Say whose link it is."""

    stage: ClassVar[Stage] = Stage.NAME

    alias: str

    def __str__(self) -> str:
        return f"set alias of {self.interface} to {self.alias}"


@dataclass(frozen=True, slots=True)
class AddAlternativeName(_OfPort):
    """Give the link the name that people look for."""

    stage: ClassVar[Stage] = Stage.NAME

    name: str

    def __str__(self) -> str:
        return f"give {self.interface} the alternative name {self.name}"


@dataclass(frozen=True, slots=True)
class SetMac(OfLink):
    """Set the host side's MAC address."""

    stage: ClassVar[Stage] = Stage.NAME

    mac: Mac

    def __str__(self) -> str:
        return f"set MAC of {self.interface} to {self.mac}"


@dataclass(frozen=True, slots=True)
class SetMtu(OfLink):
    """Set the MTU, in bytes."""

    stage: ClassVar[Stage] = Stage.NAME

    mtu: int

    def __str__(self) -> str:
        return f"set MTU of {self.interface} to {self.mtu}"


@dataclass(frozen=True, slots=True)
class SetSysctl(OfLink):
    """A setting of the port, as in `ipv4/rp_filter`."""

    stage: ClassVar[Stage] = Stage.SYSCTL

    name: str
    value: int

    def __str__(self) -> str:
        return f"set {self.name} of {self.interface} to {self.value}"


@dataclass(frozen=True, slots=True)
class RemoveAddress(OfLink):
    """Take an address from a port that should not have it."""

    stage: ClassVar[Stage] = Stage.ADDRESS

    address: InterfaceAddress

    def __str__(self) -> str:
        return f"remove address {self.address} from {self.interface}"


@dataclass(frozen=True, slots=True)
class AddAddress(OfLink):
    """Give the port a gateway address, without duplicate address detection."""

    stage: ClassVar[Stage] = Stage.ADDRESS

    address: InterfaceAddress

    def __str__(self) -> str:
        return f"add address {self.address} to {self.interface}"


@dataclass(frozen=True, slots=True)
class LoadGuard(_OfPort):
    """Load the port's anti-spoofing and read it back."""

    stage: ClassVar[Stage] = Stage.GUARD

    guard: Guard
    found: GuardState | None
    """What it replaces."""

    def __str__(self) -> str:
        return f"load anti-spoofing of {self.interface}"


@dataclass(frozen=True, slots=True)
class SetUp(OfLink):
    """Let frames pass."""

    stage: ClassVar[Stage] = Stage.SET_UP

    def __str__(self) -> str:
        return f"set {self.interface} up"


@dataclass(frozen=True, slots=True)
class AddRoute(OfLink):
    """Route an address of the VM, with our protocol number and a metric that says the preference."""

    stage: ClassVar[Stage] = Stage.ADD_ROUTE

    prefix: Prefix
    metric: int
    gateway: HostAddress | None
    """As of a `HostRoute`."""

    def __str__(self) -> str:
        way = "" if self.gateway is None else f" via {self.gateway}"
        preference = "" if self.metric == ROUTE_METRIC else f", metric {self.metric}"
        return f"add route {self.prefix}{way} to {self.interface}{preference}"


GuardOperation = LoadTable | LoadGuard | RemoveGuard
Operation = (
    SetNodeSysctl
    | GuardOperation
    | RemoveRoute
    | SetDown
    | DeleteLink
    | CreateLink
    | BridgeOperation
    | VlanOperation
    | UplinkOperation
    | MoveOperation
    | RenameLink
    | SetAlias
    | AddAlternativeName
    | SetMac
    | SetMtu
    | SetSysctl
    | RemoveAddress
    | AddAddress
    | SetUp
    | AddRoute
)


@dataclass(frozen=True, slots=True)
class Failure:
    """An operation that the kernel refused. What follows for the same VM was not tried."""

    operation: Operation
    reason: str

    def __str__(self) -> str:
        return f"could not {self.operation}: {self.reason}"
