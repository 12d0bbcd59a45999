"""`ip.import`: addresses that were in use before vmfabric become reservations."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.addressing import ImportAddresses, Imported, ImportRow, Reservation, RowProblem
from vmfabric.contract.errors import Code, Refused
from vmfabric.ipam.domain.lease import Given
from vmfabric.ipam.domain.pool_stock import PoolStock
from vmfabric.ipam.domain.reserving import Holders, obstacle
from vmfabric.ipam.domain.stock import Stock
from vmfabric.ipam.ports import Store
from vmfabric.ipam.reserving import changed, holders_of, keep
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
        problems = tuple(_problems(request.rows, wanted, stock, holders))
        once = list({each.address: each for each in reversed(wanted)}.values())
        news = changed(once, stock)
        if not problems and not request.dry_run:
            await keep(news, stock, self._store, now)
        return Imported(
            imported=0 if problems else len(news),
            unchanged=len(once) - len(news),
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


def _problems(
    rows: Sequence[ImportRow], wanted: Sequence[Reservation], stock: Stock, holders: Holders
) -> Iterator[RowProblem]:
    first: dict[HostAddress, int] = {}
    for number, (row, each) in enumerate(zip(rows, wanted, strict=True), 1):
        before = first.setdefault(each.address, number)
        sentence = None
        if before != number:
            sentence = _again(row, each, rows[before - 1], wanted[before - 1], before)
        elif (refusal := obstacle(each, stock, holders)) is not None:
            sentence = refusal.sentence
        elif (until := stock.reservations.holds.until(each.address)) is not None:
            sentence = (
                f"{each.address} is reserved for {each.owner} until {until.isoformat(timespec='seconds')}, and an "
                "import would keep it for ever; say ip.reserve without an end, or ip.release, and import again"
            )
        else:
            sentence = _of_another_vm(row, each, stock)
        if sentence is not None:
            yield RowProblem(row=number, address=row.address, sentence=sentence)


def _again(row: ImportRow, wanted: Reservation, other: ImportRow, before: Reservation, number: int) -> str | None:
    """Several addresses of one prefix are one reservation, if they are one VM's."""
    if row.address == other.address:
        return f"{row.address} stands in row {number} already"
    if (wanted.owner, wanted.for_vm) == (before.owner, before.for_vm):
        return None
    return (
        f"{row.address} and {other.address} are of one prefix, which a VM gets whole, but the one is "
        f"for {wanted.for_vm or wanted.owner} and the other for {before.for_vm or before.owner}"
    )


def _of_another_vm(row: ImportRow, wanted: Reservation, stock: Stock) -> str | None:
    """An earlier import may have had another address of the same prefix."""
    prefix, earlier = stock.prefix_of(Given(wanted.address, wanted.pool)), stock.reservations.get(wanted.address)
    if prefix is None or earlier is None or earlier.for_vm in {None, wanted.for_vm}:
        return None
    return f"{row.address} is of {prefix}, which is kept for VM {earlier.for_vm} already, and a VM gets it whole"
