"""Administration of addresses: reservations, how full pools are, and who had an address when.

| subject | request | answer | service |
| --- | --- | --- | --- |
| `pool.free` | ListFree | FreeAddresses | ipam |
| `pool.usage` | AskUsage | UsageReport | ipam |
| `ip.history` | AskHistory | AddressHistory | ipam |
| `ip.reserve` | ReserveAddresses | Reserved | ipam |
| `ip.release` | ReleaseAddresses | Released | ipam |
| `ip.import` | ImportAddresses | Imported | ipam |
"""

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, Field, model_validator

from vmfabric.contract.addresses import Family, HostAddress, Prefix
from vmfabric.contract.model import Part, Request
from vmfabric.contract.names import ClusterName, NodeName, Note, OwnerName, ResourceName, VmName

_AT_ONCE = 1000


class ListFree(Request):
    """Where can a VM of this cluster have an address?"""

    cluster: ClusterName


class FreeInPool(Part):
    """How many addresses a pool can give now."""

    pool: ResourceName
    free: dict[Family, int]
    """Of each family that the pool has."""
    ipv6_length: int = 128
    """How much of IPv6 it gives at once."""
    nodes: dict[NodeName, dict[Family, int]] | None = None
    """The same for the VMs of each node; None where every node's VMs may have every address of the pool."""


class FreeAddresses(Part):
    """The pools of a cluster, in the order in which they are asked."""

    cluster: ClusterName
    pools: tuple[FreeInPool, ...]


class AskUsage(Request):
    """How full are these pools, and for how long will they do?"""

    cluster: ClusterName | None = None
    pool: ResourceName | None = None


class Trend(Part):
    """What a pool lost over some time, and what follows if that goes on."""

    net_allocated: int
    """Addresses given to VMs, less those that VMs gave back."""
    since: datetime | None = None
    """From when that counts: a day or a week ago, or from what was first heard of the pool if that is later. None:
    nothing was heard of it yet."""
    runs_out_at: datetime | None = None
    """When the free ones would be gone, now when none is free; None when they would not, or not before the year
    10000, or when less than an hour is known."""


class FamilyUsage(Part):
    """How full a pool is of one family. All numbers are exact, also those of IPv6, which are often above 2**53."""

    free: int
    used: int
    """Held by VMs."""
    quarantined: int
    reserved: int
    """Kept for somebody, and neither held by a VM nor resting."""
    excluded: int
    """Never given: excluded, a gateway, or in no node's range."""
    largest_free_block: Prefix | None = None
    """Of which every address is free; the lowest of several. None when nothing is free."""
    last_day: Trend
    last_week: Trend


class UsageOfPool(Part):
    """How full a pool is, for each family that it has."""

    pool: ResourceName
    cluster: ClusterName
    families: dict[Family, FamilyUsage]


class UsageReport(Part):
    """Pools, in the order of their names."""

    pools: tuple[UsageOfPool, ...]


class AskHistory(Request):
    """Who had this address, and who had it at that moment, or from then on until another?"""

    address: HostAddress
    at: AwareDatetime | None = None
    """As 2030-01-03T12:00:00Z; without it, now."""
    until: AwareDatetime | None = None
    """With `at`: who had it at any time between both."""

    @model_validator(mode="after")
    def _from_then_on(self) -> "AskHistory":
        if self.until is not None and (self.at is None or self.until < self.at):
            raise ValueError("`until` is a moment after `at`; give both for the time between them")
        return self


class Tenure(Part):
    """For how long an address was a VM's, or was reserved for somebody."""

    cluster: ClusterName
    vm: VmName | None = None
    """Whose it was; of a reservation, the VM that might have it, if one might."""
    node: NodeName | None = None
    """Where the VM was first."""
    owner: OwnerName | None = None
    """For whom it was reserved; None when it was a VM's."""
    note: Note = ""
    prefix: Prefix | None = None
    """What went with the address."""
    since: datetime | None = None
    """None when that is longer ago than what is remembered or was read."""
    until: datetime | None = None
    """None when it has not ended."""


class AddressHistory(Part):
    """Who had an address when. It is remembered when the VM has gone, for as long as ipam is set to."""

    address: HostAddress
    at: datetime
    sentence: str
    """Who had it then, or at any time until `until`."""
    holder: Tenure | None = None
    """The VM that had it at `at`."""
    reserved: Tenure | None = None
    """For whom it was reserved at `at`."""
    tenures: tuple[Tenure, ...]
    """Around that moment, newest first."""


class ReserveAddresses(Request):
    """Keep addresses for somebody: these, or so many of a pool. All of them, or none.

    The same owner may reserve the same addresses again: note, VM and end become those of the last request.
    """

    owner: OwnerName
    note: Note = ""
    addresses: Annotated[tuple[HostAddress, ...], Field(min_length=1, max_length=_AT_ONCE)] | None = None
    """Exactly these, each of a pool, free or resting, or held by `for_vm`."""
    pool: ResourceName | None = None
    """Without `addresses`: the lowest free ones of this pool."""
    family: Family = Family.IPV4
    count: Annotated[int, Field(ge=1, le=_AT_ONCE)] = 1
    node: NodeName | None = None
    """With `pool`, where that has ranges: of the range of this node."""
    for_vm: VmName | None = None
    """This VM may have them, by asking for exactly such an address; nobody else."""
    expires_in_seconds: Annotated[int, Field(ge=1, le=10 * 365 * 24 * 3600)] | None = None
    """A hold: it ends by itself. Without it, a reservation ends by `ip.release` only."""
    dry_run: bool = False

    @model_validator(mode="after")
    def _these_or_so_many(self) -> "ReserveAddresses":
        if (self.addresses is None) == (self.pool is None):
            raise ValueError("give either `addresses`, or a `pool` with `count` and `family`")
        of_pool = {"family", "count", "node"} & self.model_fields_set
        if self.addresses is not None and of_pool:
            raise ValueError(f"{' and '.join(sorted(of_pool))} belong to a `pool`, not to `addresses`")
        if self.addresses is not None and len(set(self.addresses)) < len(self.addresses):
            raise ValueError("an address stands there twice")
        return self


class Reservation(Part):
    """An address that is kept for somebody. It stays so when its VM comes and goes."""

    address: HostAddress
    pool: ResourceName
    cluster: ClusterName
    owner: OwnerName
    note: Note = ""
    since: datetime
    expires_at: datetime | None = None
    for_vm: VmName | None = None
    """Who may have it, by asking for exactly this address; None: nobody."""
    node: NodeName | None = None
    """Where it was in use when it was imported."""


class Reserved(Part):
    """What is reserved now, or would be."""

    reservations: tuple[Reservation, ...]
    dry_run: bool


class ReleaseAddresses(Request):
    """End the reservations of these addresses. All of them, or none. No VM loses an address by that."""

    addresses: Annotated[tuple[HostAddress, ...], Field(min_length=1, max_length=_AT_ONCE)]
    dry_run: bool = False


class Released(Part):
    """The reservations that are no more, or would be no more."""

    reservations: tuple[Reservation, ...]
    dry_run: bool


class ImportRow(Request):
    """An address that is in use already, by whatever was there before vmfabric."""

    address: HostAddress
    vm: VmName | None = None
    """The VM that has it: one of this name may then ask for exactly this address."""
    owner: OwnerName | None = None
    """Whose it is; without it, the VM's."""
    node: NodeName | None = None
    """Where it is; where the pool has ranges, the address must be in the range of this node."""
    note: Note = ""

    @model_validator(mode="after")
    def _somebody(self) -> "ImportRow":
        if self.vm is None and self.owner is None:
            raise ValueError("give the `vm` that has it, or an `owner`")
        return self


class ImportAddresses(Request):
    """Reserve addresses that are in use already. All of them, or none; the same rows again change nothing."""

    pool: ResourceName
    rows: Annotated[tuple[ImportRow, ...], Field(min_length=1, max_length=_AT_ONCE)]
    dry_run: bool = False


class RowProblem(Part):
    """Why a row cannot be imported."""

    row: int
    """Its place among the rows, from 1."""
    address: HostAddress
    sentence: str


class Imported(Part):
    """What was imported, or would be; nothing when any row has a problem."""

    imported: int
    unchanged: int
    """Rows that are reserved just so already."""
    problems: tuple[RowProblem, ...]
    dry_run: bool
