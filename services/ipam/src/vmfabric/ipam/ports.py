"""What the handlers, the writer and the endpoints need of the world outside."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.addressing import Reservation
from vmfabric.contract.admin import AddressRecord, HistoryEntry
from vmfabric.contract.envelope import Outgoing
from vmfabric.contract.names import ClusterName, ResourceName
from vmfabric.contract.pool import NetworkSpec, PoolSpec
from vmfabric.ipam.domain.changes import Changes, Holding
from vmfabric.ipam.domain.keeping import InUse
from vmfabric.ipam.domain.lease import Lease, VmKey
from vmfabric.ipam.domain.usage import NetAllocated


@dataclass(frozen=True, slots=True)
class Content:
    """What the writer keeps in memory."""

    networks: Sequence[NetworkSpec]
    pools: Sequence[PoolSpec]
    in_use: Sequence[InUse]
    reservations: Sequence[Reservation]


class Store(Protocol):
    """What the one writer reads and writes. Each writing call is one transaction, with the messages that follow."""

    async def load(self) -> Content:
        """Everything that the stock is built from."""
        ...

    async def leases(self, keys: Collection[VmKey]) -> Mapping[VmKey, Lease]:
        """The leases of those VMs that have one."""
        ...

    async def holdings(self, addresses: Collection[HostAddress]) -> Sequence[Holding]:
        """Who holds or held these addresses."""
        ...

    async def in_use(self, pool: ResourceName) -> Sequence[InUse]:
        """Every address of the pool that is held or rests."""
        ...

    async def commit(self, changes: Changes, messages: Sequence[Outgoing]) -> None:
        """Write all of it. An error when a new lease or holding is there already."""
        ...

    async def put_network(self, spec: NetworkSpec, messages: Sequence[Outgoing]) -> None:
        """Write a network."""
        ...

    async def put_pool(self, spec: PoolSpec, messages: Sequence[Outgoing]) -> None:
        """Write a pool with its blocks and exclusions."""
        ...

    async def delete_network(self, name: ResourceName) -> None:
        """Remove a network."""
        ...

    async def delete_pool(self, name: ResourceName, messages: Sequence[Outgoing]) -> None:
        """Remove a pool, of which no address is there."""
        ...

    async def forget(self, *, fences_before: datetime, history_before: datetime) -> None:
        """Remove released leases that are older, and history but for the beginning of what goes on."""
        ...


class Records(Protocol):
    """What operators ask for."""

    async def records(
        self, cluster: ClusterName | None, after: HostAddress | None, limit: int
    ) -> Sequence[AddressRecord]:
        """Addresses that are held, rest or are reserved, ascending, IPv4 first."""
        ...

    async def record(self, address: HostAddress) -> AddressRecord | None:
        """Who holds this address, or held it while it rests, and for whom it is reserved."""
        ...

    async def history(self, address: HostAddress, limit: int) -> Sequence[HistoryEntry]:
        """What happened to this address, newest first."""
        ...

    async def tenures_around(self, address: HostAddress, at: datetime, limit: int) -> Sequence[HistoryEntry]:
        """Where VMs and reservations began and ended to have this address, oldest first.

        Of VMs and of reservations each, up to `limit` until that moment, and as many after it.
        """
        ...

    async def net_allocated(self, since: datetime) -> NetAllocated:
        """What VMs took since then of what each pool has now, of pools that anything was ever heard of."""
        ...
