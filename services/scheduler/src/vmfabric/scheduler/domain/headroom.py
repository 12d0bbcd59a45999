"""N+1: what new VMs must leave, so that those of some nodes would find room on the others."""

from collections.abc import Collection, Iterable

from vmfabric.contract.cluster import Placement
from vmfabric.scheduler.domain.candidate import Candidate, Usage
from vmfabric.scheduler.domain.offer import Room


class Headroom:
    """Sums over a cluster; `Placement.headroom_nodes` says what exactly is promised."""

    def __init__(self, candidates: Collection[Candidate], rules: Placement) -> None:
        rooms = [Room.of(candidate, rules) for candidate in candidates if candidate.is_open]
        self._nodes = rules.headroom_nodes
        self._room = Room(
            self._without_largest(room.cpu for room in rooms),
            self._without_largest(room.memory_mb for room in rooms),
            self._without_largest(room.disk_gb for room in rooms),
        )
        self._used = sum((candidate.used for candidate in candidates), Usage())

    def add(self, used: Usage) -> None:
        """The VMs of the cluster take so much more."""
        self._used += used

    def shortage(self, takes: Usage) -> str | None:
        """Why a new VM would take too much, or None."""
        then = self._used + takes
        short = [
            f"{name}: VMs would take {taken}, the others have {room:g}"
            for name, taken, room in (
                ("cpu", then.cpu, self._room.cpu),
                ("memory_mb", then.memory_mb, self._room.memory_mb),
                ("disk_gb", then.disk_gb, self._room.disk_gb),
            )
            if taken > room
        ]
        return f"no headroom for the loss of {self._nodes} nodes: {'; '.join(short)}" if short else None

    def _without_largest(self, amounts: Iterable[float]) -> float:
        return sum(sorted(amounts)[: -self._nodes])
