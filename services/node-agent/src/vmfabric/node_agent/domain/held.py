"""What can be done to the addresses and routes of the node's own, which move between its NIC and its bridge.

These are done one after the other, in the order of the plan, and the first that fails ends it.
"""

from dataclasses import dataclass
from typing import ClassVar

from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.actual import HeldAddress, HeldRoute
from vmfabric.node_agent.domain.stage import Stage


@dataclass(frozen=True, slots=True)
class _OfNode:
    stage: ClassVar[Stage] = Stage.NODE
    vm: ClassVar[None] = None

    interface: InterfaceName


@dataclass(frozen=True, slots=True)
class PutAddress(_OfNode):
    """Give a link an address of the node's own."""

    held: HeldAddress

    def __str__(self) -> str:
        return f"put address {self.held.address} on {self.interface}"


@dataclass(frozen=True, slots=True)
class TakeAddress(_OfNode):
    """Take it from the link."""

    held: HeldAddress

    def __str__(self) -> str:
        return f"take address {self.held.address} from {self.interface}"


@dataclass(frozen=True, slots=True)
class PutRoute(_OfNode):
    """Let a route of the node's own lead over this link, and no other of the same prefix and metric."""

    held: HeldRoute

    def __str__(self) -> str:
        via = "" if self.held.gateway is None else f" via {self.held.gateway}"
        return f"put route {self.held.prefix}{via} on {self.interface}"


@dataclass(frozen=True, slots=True)
class TakeRoute(_OfNode):
    """Take it from the link."""

    held: HeldRoute

    def __str__(self) -> str:
        return f"take route {self.held.prefix} from {self.interface}"


MoveOperation = PutAddress | TakeAddress | PutRoute | TakeRoute
