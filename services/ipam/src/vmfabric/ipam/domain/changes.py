"""What one transaction writes."""

from dataclasses import dataclass, field
from datetime import datetime

from vmfabric.contract.addresses import HostAddress, Prefix
from vmfabric.contract.addressing import Reservation
from vmfabric.contract.envelope import Trace
from vmfabric.contract.model import Event
from vmfabric.contract.names import NodeName, ResourceName
from vmfabric.ipam.domain.history import Entry
from vmfabric.ipam.domain.lease import Lease, VmKey


@dataclass(frozen=True, slots=True)
class Holding:
    """An address that a VM holds, or held until it came to rest."""

    address: HostAddress
    pool: ResourceName
    key: VmKey
    node: NodeName
    generation: int
    position: int
    """Its place among the wishes of the VM."""
    since: datetime
    rests_until: datetime | None = None
    prefix: Prefix | None = None
    """What goes with the address."""


@dataclass(slots=True)
class Changes:
    """What one transaction writes: all of it or nothing."""

    new_leases: list[Lease] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)
    """Those that were there before."""
    new_holdings: list[Holding] = field(default_factory=list)
    holdings: list[Holding] = field(default_factory=list)
    """Those that were there before."""
    freed: list[HostAddress] = field(default_factory=list)
    reserved: list[Reservation] = field(default_factory=list)
    """New ones, and those that are otherwise than before."""
    unreserved: list[HostAddress] = field(default_factory=list)
    history: list[Entry] = field(default_factory=list)
    events: list[tuple[Event, Trace]] = field(default_factory=list)

    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.new_leases or self.leases or self.freed or self.reserved or self.history or self.events)
