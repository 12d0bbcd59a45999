"""A node beside a wish: what filters and weighers look at."""

from typing import NamedTuple

from vmfabric.contract.cluster import Placement, Policy
from vmfabric.scheduler.domain.candidate import Candidate
from vmfabric.scheduler.domain.wish import Wish


class Room(NamedTuple):
    """What a node has for VMs: its capacity without the reserve, with overcommit."""

    cpu: float
    memory_mb: float
    disk_gb: float

    @staticmethod
    def of(candidate: Candidate, rules: Placement) -> "Room":
        """All of it, free or not."""
        has, reserve, times = candidate.spec.capacity, candidate.spec.reserve, rules.overcommit
        return Room(
            (has.cpu - reserve.cpu) * times.cpu,
            (has.memory_mb - reserve.memory_mb) * times.memory,
            (has.disk_gb - reserve.disk_gb) * times.disk,
        )


class Resource(NamedTuple):
    """One of the things that VMs take of a node."""

    name: str
    total: float
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
    policy: Policy
    resources: tuple[Resource, ...]
    """CPU, memory and disk."""

    @staticmethod
    def of(candidate: Candidate, wish: Wish, rules: Placement) -> "Offer":
        """The wish beside the node."""
        room, used, takes = Room.of(candidate, rules), candidate.used, wish.takes
        resources = (
            Resource("cpu", room.cpu, used.cpu, takes.cpu),
            Resource("memory_mb", room.memory_mb, used.memory_mb, takes.memory_mb),
            Resource("disk_gb", room.disk_gb, used.disk_gb, takes.disk_gb),
        )
        return Offer(candidate, wish, rules.policy, resources)
