"""`ip.import`: addresses that were in use before vmfabric become reservations."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.addressing import ImportAddresses, Imported, ImportRow, Reservation, RowProblem
from vmfabric.contract.errors import Code, Refused
from vmfabric.ipam.domain.pool_stock import PoolStock
from vmfabric.ipam.domain.reserving import Holders, obstacle
from vmfabric.ipam.domain.stock import Stock
from vmfabric.ipam.ports import Store
from vmfabric.ipam.reserving import holders_of, keep
from vmfabric.ipam.writer import Writer
from vmfabric.runtime.clock import Clock


class Importing:
    """Reserves many addresses while none is given."""

    def __init__(self, writer: Writer, store: Store, clock: Clock) -> None:
        self._writer = writer
        self._store = store
        self._clock = clock

    async def import_rows(self, request: ImportAddresses) -> Imported:
        """All rows, or none and the problem of each that has one; Refused when there is no such pool."""
        return await self._writer.alone(lambda stock: self._import_rows(stock, request))

    async def _import_rows(self, stock: Stock, request: ImportAddresses) -> Imported:
        pool = stock.pool(request.pool)
        if pool is None:
            raise Refused(Code.UNKNOWN_POOL, f"there is no pool {request.pool}; pool.list says which there are")
        now = self._clock.now()
        wanted = [_wanted(row, pool, stock, now) for row in request.rows]
        holders = await holders_of([each.address for each in wanted], self._store)
        problems = tuple(_problems(wanted, stock, holders))
        changed = [each for each in wanted if stock.reservations.get(each.address) != each]
        if not problems and not request.dry_run:
            await keep(wanted, stock, self._store, now)
        return Imported(
            imported=0 if problems else len(changed),
            unchanged=len(wanted) - len(changed),
            problems=problems,
            dry_run=request.dry_run,
        )


def _wanted(row: ImportRow, pool: PoolStock, stock: Stock, now: datetime) -> Reservation:
    address = stock.named(row.address)
    earlier = stock.reservations.get(address)
    return Reservation(
        address=address,
        pool=pool.spec.name,
        cluster=pool.spec.cluster,
        owner=row.owner or row.vm or "",
        note=row.note,
        since=earlier.since if earlier is not None else now,
        for_vm=row.vm,
        node=row.node,
    )


def _problems(wanted: Sequence[Reservation], stock: Stock, holders: Holders) -> Iterator[RowProblem]:
    rows: dict[HostAddress, int] = {}
    for row, each in enumerate(wanted, 1):
        first = rows.setdefault(each.address, row)
        refusal = obstacle(each, stock, holders)
        if first != row:
            yield RowProblem(row=row, address=each.address, sentence=f"{each.address} stands in row {first} already")
        elif refusal is not None:
            yield RowProblem(row=row, address=each.address, sentence=refusal.sentence)
        elif (until := stock.reservations.holds.until(each.address)) is not None:
            hold = f"{each.address} is reserved for {each.owner} until {until.isoformat(timespec='seconds')}"
            yield RowProblem(
                row=row,
                address=each.address,
                sentence=f"{hold}, and an import would keep it for ever; say ip.reserve without an end, or "
                "ip.release, and import again",
            )
