"""What the handlers need from the outside."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.admin import NodeState
from vmfabric.contract.cluster import ClusterSpec, NodeSpec
from vmfabric.contract.envelope import Outgoing
from vmfabric.contract.names import ClusterName, NodeName, VmName
from vmfabric.scheduler.domain.candidate import Usage
from vmfabric.scheduler.domain.record import VmRecord


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as it is kept."""

    spec: NodeSpec
    state: NodeState
    heard_at: datetime | None
    addresses: tuple[HostAddress, ...]
    """Of its last heartbeat."""
    used: Usage


class Transaction(Protocol):
    """All of it or nothing of it; what is sent is published after the commit."""

    async def cluster(self, name: ClusterName) -> ClusterSpec | None:
        """One cluster."""
        ...

    async def clusters(self) -> Sequence[ClusterSpec]:
        """All, by name."""
        ...

    async def save_cluster(self, spec: ClusterSpec) -> None:
        """Make it so."""
        ...

    async def node(self, cluster: ClusterName, name: NodeName) -> NodeRow | None:
        """One node."""
        ...

    async def nodes(self, cluster: ClusterName | None = None, *, claim: bool = False) -> Sequence[NodeRow]:
        """Of a cluster or of all, by name. With `claim` nobody else may claim room on them until the commit."""
        ...

    async def save_node(self, spec: NodeSpec) -> None:
        """Make it so; state and use stay."""
        ...

    async def save_node_state(
        self,
        cluster: ClusterName,
        name: NodeName,
        state: NodeState,
        heard_at: datetime | None,
        addresses: Sequence[HostAddress],
    ) -> None:
        """What was heard of it."""
        ...

    async def vm(self, cluster: ClusterName, name: VmName) -> VmRecord | None:
        """One VM; nobody else may change it until the commit."""
        ...

    async def vms(self, cluster: ClusterName | None, after: tuple[str, str], limit: int) -> Sequence[VmRecord]:
        """The next ones by (cluster, name) behind `after`."""
        ...

    async def add_vm(self, record: VmRecord) -> None:
        """A new one, which takes its size of its node."""
        ...

    async def save_vm(self, record: VmRecord) -> None:
        """One that is there already."""
        ...

    async def remove_vm(self, record: VmRecord) -> None:
        """It gives its size back to its node."""
        ...

    async def due_vms(self, now: datetime, limit: int) -> Sequence[tuple[ClusterName, VmName]]:
        """Those that must be asked for again, or whose deadline is over."""
        ...

    async def last_request(self, cluster: ClusterName, name: VmName) -> datetime | None:
        """When the bus took the last request that was served for a VM that is not there."""
        ...

    async def keep_last_request(self, cluster: ClusterName, name: VmName, at: datetime) -> None:
        """Remember it, so that a late repetition is known as one."""
        ...

    async def forget_requests(self, before: datetime) -> None:
        """No stream keeps a request that old."""
        ...

    async def next_generation(self) -> int:
        """Higher than all before."""
        ...

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Publish these after the commit, in this order."""
        ...

    async def is_sending(self) -> bool:
        """Whether messages wait to be published."""
        ...


class Store(Protocol):
    """Where transactions come from."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Commits at the end of the block, rolls back when it raises."""
        ...
