"""Which addresses operators may reserve and release, and what is written then."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import islice

from vmfabric.contract.addresses import Family, HostAddress
from vmfabric.contract.addressing import Reservation
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.names import NodeName, VmName
from vmfabric.ipam.domain.changes import Changes
from vmfabric.ipam.domain.history import Entry, What
from vmfabric.ipam.domain.lease import Given
from vmfabric.ipam.domain.naming import named
from vmfabric.ipam.domain.pool_stock import PoolStock
from vmfabric.ipam.domain.pools import hindrance, node_of
from vmfabric.ipam.domain.refusals import without_family
from vmfabric.ipam.domain.stock import Stock

Holders = Mapping[HostAddress, VmName]
"""Which VM holds an address now."""


def obstacle(wanted: Reservation, stock: Stock, holders: Holders) -> Refused | None:
    """Why this cannot be reserved; None when it can."""
    address = wanted.address
    pool = stock.pool_around(address)
    if pool is None or pool.spec.name != wanted.pool:
        where = f"in no block of pool {wanted.pool}" + (f", but in pool {pool.spec.name}" if pool is not None else "")
        return Refused(Code.UNKNOWN_ADDRESS, f"{address} lies {where}")
    hindered = hindrance(address, pool.spec, stock.withheld)
    if hindered is not None:
        return Refused(Code.ADDRESS_EXCLUDED, f"{address} cannot be given: {hindered}")
    home = node_of(address, pool.spec)
    if pool.spec.ranges and wanted.node not in {None, home}:
        return Refused(
            Code.ADDRESS_EXCLUDED,
            f"{address} is in the range of node {home} of pool {wanted.pool}, not {wanted.node}",
        )
    earlier = stock.reservations.get(address)
    if earlier is not None and earlier.owner != wanted.owner:
        return Refused(Code.ADDRESS_TAKEN, f"{address} is reserved for {earlier.owner}; ip.release ends that")
    holder = holders.get(address)
    if holder not in {None, wanted.for_vm}:
        return Refused(
            Code.ADDRESS_TAKEN,
            f"{address} is held by VM {holder}; reserve it for that VM (for_vm), or delete it first",
        )
    return None


def lowest_free(pool: PoolStock, family: Family, count: int, node: NodeName | None) -> Sequence[HostAddress]:
    """So many addresses of the pool, of the range of `node` if that is given. Refused when there are fewer."""
    if node is not None and not pool.spec.ranges:
        raise Refused(
            Code.INVALID_REQUEST,
            f"pool {pool.spec.name} has no ranges, so node {node} has none of its own there; leave `node` out",
        )
    if node is not None and node not in pool.spec.ranges:
        raise Refused(
            Code.INVALID_REQUEST,
            f"pool {pool.spec.name} has no range for node {node}, but for {named(sorted(pool.spec.ranges))}",
        )
    if family not in pool.families:
        raise without_family(pool.spec.cluster, family, [pool])
    numbers = (number for each in pool.free_ranges(family, node) for number in range(each.first, each.last + 1))
    found = [pool.units(family).address_of(number) for number in islice(numbers, count)]
    if len(found) < count:
        whose = f" for node {node}" if node is not None else ""
        raise Refused(
            Code.POOL_EXHAUSTED,
            f"{count} {family} addresses of pool {pool.spec.name}{whose} are wanted, but {len(found)} are free; "
            "pool.usage says what the others are",
        )
    return found


def reserved(wanted: Sequence[Reservation], stock: Stock, now: datetime) -> Changes:
    """What is written when these are reserved, for the first time or again."""
    history = [
        _entry(each, What.RESERVED if stock.reservations.get(each.address) is None else What.RENEWED, stock, now)
        for each in wanted
    ]
    return Changes(reserved=list(wanted), history=history)


def unreserved(ended: Sequence[Reservation], what: What, stock: Stock, now: datetime) -> Changes:
    """What is written when these end."""
    history = [_entry(each, what, stock, now) for each in ended]
    return Changes(unreserved=[each.address for each in ended], history=history)


def to_release(addresses: Collection[HostAddress], stock: Stock, holders: Holders) -> Sequence[Reservation]:
    """Their reservations. Refused when one has none, or when a VM holds one of them."""
    if held := [f"{address} ({holders[address]})" for address in addresses if address in holders]:
        raise Refused(
            Code.IN_USE,
            f"VMs hold {named(held)}; their addresses are released when they are deleted (vm.delete.requested), and "
            "ip.release ends what is reserved for nobody's use",
        )
    found = {address: stock.reservations.get(address) for address in addresses}
    if unknown := [address for address, reservation in found.items() if reservation is None]:
        raise Refused(Code.UNKNOWN_ADDRESS, f"{named(unknown)} are not reserved; ip.list says which are")
    return [reservation for reservation in found.values() if reservation is not None]


def _entry(reservation: Reservation, what: What, stock: Stock, now: datetime) -> Entry:
    return Entry(
        reservation.address,
        now,
        what,
        reservation.cluster,
        reservation.for_vm,
        reservation.node,
        owner=reservation.owner,
        note=reservation.note,
        prefix=stock.prefix_of(Given(reservation.address, reservation.pool)),
    )
