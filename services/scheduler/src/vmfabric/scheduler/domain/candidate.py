"""What placement knows of a node."""

from dataclasses import dataclass

from vmfabric.contract.admin import NodeState
from vmfabric.contract.cluster import NodeSpec
from vmfabric.contract.names import NodeName
from vmfabric.contract.vm import VmSize
from vmfabric.scheduler.domain.supply import Supply


@dataclass(frozen=True, slots=True)
class Usage:
    """What VMs take of a node."""

    cpu: int = 0
    memory_mb: int = 0
    disk_gb: int = 0
    vms: int = 0

    @staticmethod
    def of(size: VmSize) -> "Usage":
        """What one VM takes."""
        return Usage(size.cpu, size.memory_mb, size.disk_gb, 1)

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.cpu + other.cpu,
            self.memory_mb + other.memory_mb,
            self.disk_gb + other.disk_gb,
            self.vms + other.vms,
        )

    def __neg__(self) -> "Usage":
        return Usage(-self.cpu, -self.memory_mb, -self.disk_gb, -self.vms)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node as placement sees it."""

    spec: NodeSpec
    state: NodeState
    used: Usage
    is_drained: bool = False
    supply: Supply | None = None
    """None: every node has the same addresses to give, or what it has is not known."""
    problem: str | None = None
    """Why no VM can work there."""

    @property
    def name(self) -> NodeName:
        """Its name."""
        return self.spec.name

    @property
    def is_open(self) -> bool:
        """Whether it takes VMs at all."""
        return self.state is NodeState.JOINED and not self.is_drained
