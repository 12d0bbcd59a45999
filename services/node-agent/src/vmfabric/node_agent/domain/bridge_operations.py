"""What can be done to bridges and their ports, and to the uplink of a node that routes to one."""

from dataclasses import dataclass
from typing import ClassVar

from vmfabric.contract.addresses import HostAddress, Mac
from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.actual import BridgeSettings, PortVlan
from vmfabric.node_agent.domain.link_guard import LinkGuard
from vmfabric.node_agent.domain.stage import OfLink, Stage


@dataclass(frozen=True, slots=True)
class CreateBridge(OfLink):
    """Make a bridge of ours, down, with our group. It forwards at once: there is no other way to be closed."""

    stage: ClassVar[Stage] = Stage.CREATE_LINK

    mac: Mac

    def __str__(self) -> str:
        return f"create bridge {self.interface}"


@dataclass(frozen=True, slots=True)
class SetBridge(OfLink):
    """How the bridge forwards."""

    stage: ClassVar[Stage] = Stage.NAME

    settings: BridgeSettings

    def __str__(self) -> str:
        return f"set bridge {self.interface} to STP {self.settings.stp}, forward delay {self.settings.forward_delay}"


@dataclass(frozen=True, slots=True)
class LoadLinkGuard(OfLink):
    """Load what may pass the link, and read it back."""

    stage: ClassVar[Stage] = Stage.EGRESS

    guard: LinkGuard

    def __str__(self) -> str:
        return f"let {self.guard.words}"


@dataclass(frozen=True, slots=True)
class RemoveLinkGuard(OfLink):
    """It does not have to be guarded any more."""

    stage: ClassVar[Stage] = Stage.REMOVE_GUARD

    def __str__(self) -> str:
        return f"let any frame pass {self.interface}"


@dataclass(frozen=True, slots=True)
class SetMaster(OfLink):
    """Put a link into a bridge; None: take it out of whatever holds it."""

    stage: ClassVar[Stage] = Stage.JOIN

    bridge: InterfaceName | None

    def __str__(self) -> str:
        return (
            f"put {self.interface} into {self.bridge}" if self.bridge else f"take {self.interface} out of its bridge"
        )


@dataclass(frozen=True, slots=True)
class SetIsolated(OfLink):
    """Whether other isolated ports of the bridge are reached only through the node."""

    stage: ClassVar[Stage] = Stage.JOIN

    isolated: bool

    def __str__(self) -> str:
        return f"set {self.interface} {'isolated' if self.isolated else 'not isolated'}"


@dataclass(frozen=True, slots=True)
class SetVlanFiltering(OfLink):
    """Whether the bridge keeps VLANs apart. Nothing of what is not tagged is lost on the way."""

    stage: ClassVar[Stage] = Stage.NAME

    is_on: bool

    def __str__(self) -> str:
        return f"{'keep VLANs apart' if self.is_on else 'tell no VLANs apart'} in {self.interface}"


@dataclass(frozen=True, slots=True)
class JoinVlan(OfLink):
    """Put a port of a bridge into a VLAN, or change how it is in it."""

    stage: ClassVar[Stage] = Stage.JOIN

    vlan: PortVlan

    def __str__(self) -> str:
        tagged = "" if self.vlan.leaves_untagged else ", tagged"
        return f"put {self.interface} into VLAN {self.vlan.number}{tagged}"


@dataclass(frozen=True, slots=True)
class LeaveVlans(OfLink):
    """Take a port of a bridge out of VLANs."""

    stage: ClassVar[Stage] = Stage.JOIN

    first: int
    last: int

    def __str__(self) -> str:
        which = f"VLAN {self.first}" if self.first == self.last else f"VLANs {self.first} to {self.last}"
        return f"take {self.interface} out of {which}"


@dataclass(frozen=True, slots=True)
class AddProxy(OfLink):
    """Answer on this link for an address that is behind the node."""

    stage: ClassVar[Stage] = Stage.ADD_ROUTE

    address: HostAddress

    def __str__(self) -> str:
        return f"answer for {self.address} on {self.interface}"


@dataclass(frozen=True, slots=True)
class RemoveProxy(OfLink):
    """Answer for it no more."""

    stage: ClassVar[Stage] = Stage.REMOVE_ROUTE

    address: HostAddress

    def __str__(self) -> str:
        return f"answer for {self.address} on {self.interface} no more"


BridgeOperation = CreateBridge | SetBridge | SetMaster | SetIsolated
VlanOperation = SetVlanFiltering | JoinVlan | LeaveVlans
UplinkOperation = LoadLinkGuard | RemoveLinkGuard | AddProxy | RemoveProxy
