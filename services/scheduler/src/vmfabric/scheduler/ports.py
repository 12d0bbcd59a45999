"""What the scheduler needs from the outside."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.cluster import ClusterSpec, NodeSpec
from vmfabric.contract.names import ClusterName, ResourceName
from vmfabric.contract.placement import PlacementDecision
from vmfabric.scheduler.domain.candidate import Usage
from vmfabric.scheduler.domain.changes import Changes, Heard, NodeKey
from vmfabric.scheduler.domain.drain import Drain
from vmfabric.scheduler.domain.record import LeftBehind, Stamp, VmKey, VmRecord


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as it is kept."""

    spec: NodeSpec
    heard: Heard
    used: Usage
    drain: Drain | None = None

    @property
    def key(self) -> NodeKey:
        """Cluster and name."""
        return NodeKey(self.spec.cluster, self.spec.name)


class Rows(Protocol):
    """An open transaction of the database."""

    async def clusters(self) -> Sequence[ClusterSpec]:
        """All, by name."""
        ...

    async def nodes(self, cluster: ClusterName | None = None, *, lock: bool = False) -> Sequence[NodeRow]:
        """Of a cluster or of all, by name. With `lock` nobody else changes them until the end."""
        ...

    async def lock_vms(self, keys: Collection[VmKey]) -> Mapping[VmKey, VmRecord]:
        """Those that are there; nobody else changes them until the end."""
        ...

    async def vm(self, key: VmKey) -> VmRecord | None:
        """One VM as it is now."""
        ...

    async def decision(self, key: VmKey) -> PlacementDecision | None:
        """Why its node was chosen; None when that is not known."""
        ...

    async def vms_in_groups(self, cluster: ClusterName, groups: Collection[ResourceName]) -> Sequence[VmRecord]:
        """Those that name at least one of these groups."""
        ...

    async def vm_with(self, address: HostAddress) -> VmKey | None:
        """The VM that has this address."""
        ...

    async def vms(self, cluster: ClusterName | None, after: tuple[str, str], limit: int) -> Sequence[VmRecord]:
        """The next ones by (cluster, name) behind `after`."""
        ...

    async def vms_on(self, node: NodeKey) -> Sequence[VmRecord]:
        """Those that take room on the node, by name."""
        ...

    async def due_vms(self, now: datetime, limit: int) -> Sequence[VmKey]:
        """Those that must be asked for again, or whose deadline is over; the longest due first."""
        ...

    async def last_requests(self, keys: Collection[VmKey]) -> Mapping[VmKey, Stamp]:
        """The last request that was served for VMs that are not there."""
        ...

    async def last_generation(self) -> int:
        """The highest that was ever handed out."""
        ...

    async def raise_generation(self, least: int) -> None:
        """Those to come are higher than this."""
        ...

    async def new_generations(self, count: int) -> Sequence[int]:
        """Higher than all before, ascending. Those that are not used are lost."""
        ...

    async def left_behind(self, vm: VmKey | None = None) -> Sequence[LeftBehind]:
        """What nodes that are lost have to let go, of one VM or of all."""
        ...

    async def waiting_subjects(self) -> Collection[str]:
        """Of the messages that are committed and not published yet."""
        ...

    async def write(self, changes: Changes) -> None:
        """Once, at the end of the transaction."""
        ...


class Store(Protocol):
    """Where transactions come from."""

    def rows(self) -> AbstractAsyncContextManager[Rows]:
        """Commits at the end of the block, rolls back when it raises."""
        ...
