"""`ip.reserve` and `ip.release`: addresses that operators keep for somebody."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.addressing import (
    ReleaseAddresses,
    Released,
    Reservation,
    ReserveAddresses,
    Reserved,
)
from vmfabric.contract.errors import Code, Refused
from vmfabric.ipam.domain import reserving
from vmfabric.ipam.domain.history import What
from vmfabric.ipam.domain.naming import named
from vmfabric.ipam.domain.reserving import Holders
from vmfabric.ipam.domain.stock import Stock
from vmfabric.ipam.ports import Store
from vmfabric.ipam.writer import Writer
from vmfabric.runtime.clock import Clock


class Reserving:
    """Changes reservations while no address is given."""

    def __init__(self, writer: Writer, store: Store, clock: Clock) -> None:
        self._writer = writer
        self._store = store
        self._clock = clock

    async def reserve(self, request: ReserveAddresses) -> Reserved:
        """Keep addresses for somebody; Refused, and none is kept, when one of them cannot be."""
        return await self._writer.alone(lambda stock: self._reserve(stock, request))

    async def release(self, request: ReleaseAddresses) -> Released:
        """End reservations; Refused, and none ends, when an address is not reserved or a VM holds it."""
        return await self._writer.alone(lambda stock: self._release(stock, request))

    async def _reserve(self, stock: Stock, request: ReserveAddresses) -> Reserved:
        now = self._clock.now()
        wanted = [_wanted(request, address, stock, now) for address in _addresses(request, stock)]
        holders = await holders_of([each.address for each in wanted], self._store)
        obstacles = [reserving.obstacle(each, stock, holders) for each in wanted]
        if refusals := [each for each in obstacles if each is not None]:
            raise Refused(refusals[0].code, named([each.sentence for each in refusals]))
        if not request.dry_run:
            await keep(changed(wanted, stock), stock, self._store, now)
        return Reserved(reservations=tuple(wanted), dry_run=request.dry_run)

    async def _release(self, stock: Stock, request: ReleaseAddresses) -> Released:
        addresses = [stock.named(address) for address in request.addresses]
        holders = await holders_of(addresses, self._store)
        ended = reserving.to_release(addresses, stock, holders)
        if not request.dry_run:
            await self._store.commit(reserving.unreserved(ended, What.UNRESERVED, stock, self._clock.now()), [])
            for each in ended:
                stock.end_reservation(each)
        return Released(reservations=tuple(ended), dry_run=request.dry_run)


async def holders_of(addresses: Collection[HostAddress], store: Store) -> Holders:
    """The VMs that hold any of these addresses now."""
    return {each.address: each.key.vm for each in await store.holdings(addresses) if each.rests_until is None}


def changed(wanted: Sequence[Reservation], stock: Stock) -> Sequence[Reservation]:
    """Those that are new or otherwise than before."""
    return [each for each in wanted if stock.reservations.get(each.address) != each]


async def keep(reservations: Sequence[Reservation], stock: Stock, store: Store, now: datetime) -> None:
    """Write them."""
    if reservations:
        await store.commit(reserving.reserved(reservations, stock, now), [])
        for each in reservations:
            stock.reserve(each)


def _addresses(request: ReserveAddresses, stock: Stock) -> Sequence[HostAddress]:
    if request.addresses is not None:
        return list(dict.fromkeys(map(stock.named, request.addresses)))
    pool = stock.pool(request.pool or "")
    if pool is None:
        raise Refused(Code.UNKNOWN_POOL, f"there is no pool {request.pool}; pool.list says which there are")
    return reserving.lowest_free(pool, request.family, request.count, request.node)


def _wanted(request: ReserveAddresses, address: HostAddress, stock: Stock, now: datetime) -> Reservation:
    pool = stock.pool_around(address)
    if pool is None:
        raise Refused(Code.UNKNOWN_ADDRESS, f"{address} lies in no pool; ip.explain says in which network")
    seconds = request.expires_in_seconds
    earlier = stock.reservations.get(address)
    return Reservation(
        address=address,
        pool=pool.spec.name,
        cluster=pool.spec.cluster,
        owner=request.owner,
        note=request.note,
        since=earlier.since if earlier is not None else now,
        expires_at=now + timedelta(seconds=seconds) if seconds is not None else None,
        for_vm=request.for_vm,
        node=request.node,
    )
