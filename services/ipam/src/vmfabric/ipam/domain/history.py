"""What happened to each address, and what that means now."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.admin import AddressRecord
from vmfabric.contract.names import NodeName
from vmfabric.ipam.domain.lease import VmKey
from vmfabric.ipam.domain.pools import Place


class What(StrEnum):
    """Something that happens to an address."""

    ALLOCATED = "allocated"
    RELEASED = "released"
    FREED = "freed"


class Standing(StrEnum):
    """How an address stands that is not free."""

    ALLOCATED = "allocated"
    RELEASING = "releasing"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened to an address."""

    address: HostAddress
    at: datetime
    what: What
    key: VmKey
    node: NodeName
    generation: int


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
    owner = f"VM {record.vm} of cluster {record.cluster}"
    match Standing(record.state):
        case Standing.ALLOCATED:
            return f"{record.address} is held by {owner} on node {record.node}, generation {record.generation}."
        case Standing.RELEASING:
            return (
                f"{record.address} is held by {owner}, which is being deleted; it is released when the scheduler "
                f"and node {record.node} have both let go of generation {record.generation}."
            )
        case Standing.QUARANTINED:
            until = record.free_at.isoformat(timespec="seconds") if record.free_at else "its quarantine ends"
            return f"{record.address} was released by {owner} and rests until {until}."
