"""What placement knows of a VM and of a node."""

from dataclasses import dataclass
from typing import NamedTuple

from vmfabric.contract.admin import NodeState
from vmfabric.contract.cluster import Capacity, Overcommit
from vmfabric.contract.names import NodeName
from vmfabric.contract.vm import VmSize


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

    name: NodeName
    state: NodeState
    capacity: Capacity
    used: Usage
    is_drained: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be placed."""

    size: VmSize
    node: NodeName | None
    """Only this one, if given."""


class Resource(NamedTuple):
    """One of the things that VMs take of a node."""

    name: str
    total: float
    """With overcommit."""
    used: float
    wanted: float

    @property
    def fits(self) -> bool:
        """Whether there is room."""
        return self.used + self.wanted <= self.total

    @property
    def free_share(self) -> float:
        """K = (T - U) / T, with what is wanted taken."""
        return (self.total - self.used - self.wanted) / self.total


class Offer(NamedTuple):
    """What a node has for a wish."""

    candidate: Candidate
    wish: Wish
    resources: tuple[Resource, ...]
    """CPU, memory and disk."""

    @staticmethod
    def of(candidate: Candidate, wish: Wish, overcommit: Overcommit) -> "Offer":
        """The wish beside the node."""
        size, has, used = wish.size, candidate.capacity, candidate.used
        resources = (
            Resource("cpu", has.cpu * overcommit.cpu, used.cpu, size.cpu),
            Resource("memory_mb", has.memory_mb * overcommit.memory, used.memory_mb, size.memory_mb),
            Resource("disk_gb", has.disk_gb * overcommit.disk, used.disk_gb, size.disk_gb),
        )
        return Offer(candidate, wish, resources)
