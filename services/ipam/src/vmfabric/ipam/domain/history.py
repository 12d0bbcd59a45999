"""What happened to each address, and what that means now."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from vmfabric.contract.addresses import HostAddress, Prefix
from vmfabric.contract.addressing import Reservation
from vmfabric.contract.admin import AddressRecord
from vmfabric.contract.names import ClusterName, NodeName, Note, OwnerName, VmName
from vmfabric.ipam.domain.pools import Place


class What(StrEnum):
    """Something that happens to an address."""

    ALLOCATED = "allocated"
    RELEASED = "released"
    FREED = "freed"
    """Its quarantine is over."""
    RESERVED = "reserved"
    RENEWED = "renewed"
    """Its owner has reserved it again, perhaps for longer or for another VM."""
    UNRESERVED = "unreserved"
    EXPIRED = "expired"
    """A reservation has ended by itself."""


BEGINS = frozenset({What.ALLOCATED, What.RESERVED})
"""A VM or an owner has the address from then on."""
ENDS = frozenset({What.RELEASED, What.UNRESERVED, What.EXPIRED})
"""It has not any more."""


class Standing(StrEnum):
    """How an address stands that is not free."""

    ALLOCATED = "allocated"
    RELEASING = "releasing"
    QUARANTINED = "quarantined"
    RESERVED = "reserved"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened to an address."""

    address: HostAddress
    at: datetime
    what: What
    cluster: ClusterName
    vm: VmName | None = None
    """Whose it became or ceased to be; of a reservation, the VM that may have it."""
    node: NodeName | None = None
    generation: int | None = None
    owner: OwnerName | None = None
    """For whom it was reserved."""
    note: Note = ""
    prefix: Prefix | None = None
    """What went with it."""


def verdict(address: HostAddress, place: Place, record: AddressRecord | None) -> str:
    """What is known of an address, in one sentence."""
    if record is not None:
        return _verdict_of_record(record)
    if place.network is None:
        return f"{address} lies in no network that ipam knows."
    if place.pool is None:
        return (
            f"{address} lies in {place.network.kind} network {place.network.name}, but in no pool: no VM can get it."
        )
    if place.hindrance is not None:
        return f"{address} lies in pool {place.pool.name}, but {place.hindrance}: no VM can get it."
    for_whom = f", for VMs on node {place.node}" if place.node is not None else ""
    return f"{address} is free in pool {place.pool.name} of cluster {place.pool.cluster}{for_whom}."


def _verdict_of_record(record: AddressRecord) -> str:
    kept = f" {_words_of(record.reservation)}" if record.reservation is not None else ""
    owner = f"VM {record.vm} of cluster {record.cluster}"
    what = f"{record.address} with {record.prefix}" if record.prefix is not None else str(record.address)
    match Standing(record.state):
        case Standing.ALLOCATED:
            return f"{what} is held by {owner} on node {record.node}, generation {record.generation}.{kept}"
        case Standing.RELEASING:
            return (
                f"{what} is held by {owner}, which is being deleted; it is released when the scheduler "
                f"and node {record.node} have both let go of generation {record.generation}.{kept}"
            )
        case Standing.QUARANTINED:
            until = record.free_at.isoformat(timespec="seconds") if record.free_at else "its quarantine ends"
            return f"{what} was released by {owner} and rests until {until}.{kept}"
        case Standing.RESERVED:
            return f"No VM has {what}.{kept}"


def _words_of(reservation: Reservation) -> str:
    until = (
        f" until {reservation.expires_at.isoformat(timespec='seconds')}" if reservation.expires_at is not None else ""
    )
    note = f" ({reservation.note})" if reservation.note else ""
    who = (
        f"VM {reservation.for_vm} may have it by asking for exactly this address"
        if reservation.for_vm is not None
        else "no VM may have it"
    )
    return f"It is reserved for {reservation.owner}{note}{until}: {who}."
