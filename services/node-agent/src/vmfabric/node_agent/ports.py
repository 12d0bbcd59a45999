"""What the agent needs from outside."""

from collections.abc import Collection, Sequence
from typing import Protocol

from vmfabric.contract.names import InterfaceName, VmName
from vmfabric.node_agent.domain.actual import Actual, Interest
from vmfabric.node_agent.domain.neighbour import Question
from vmfabric.node_agent.domain.operations import Failure, Operation
from vmfabric.runtime.desired import DesiredView


class KernelUnreadableError(Exception):
    """A part of the kernel could not be read. Nothing is known then, and nothing is done."""


class KeptView(DesiredView, Protocol):
    """The desired state of this node, and the snapshot that a restart begins with."""

    @property
    def remembered(self) -> Collection[VmName]:
        """VMs of the snapshot of which the bucket has said nothing since the start."""
        ...

    def save(self) -> None:
        """Bring the snapshot up to date."""
        ...


class Kernel(Protocol):
    """The kernel of one node."""

    async def read(self, interest: Interest) -> Actual:
        """All that concerns us, and what is of interest besides. KernelUnreadableError when that cannot be read."""
        ...

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure, ...]:
        """Do them in this order. One that is refused stops its VM and no other."""
        ...

    async def ask(self, interface: InterfaceName, question: Question, seconds: float) -> bool:
        """Whether that neighbour answers on this link within this time. OSError when the link is not up."""
        ...
