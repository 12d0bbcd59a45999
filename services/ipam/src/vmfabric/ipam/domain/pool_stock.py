"""What one pool has to give."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from heapq import merge

from vmfabric.contract.addresses import Family, HostAddress
from vmfabric.contract.names import NodeName
from vmfabric.contract.pool import PoolSpec
from vmfabric.ipam.domain.allocation import Allocator, Range
from vmfabric.ipam.domain.keeping import InUse
from vmfabric.ipam.domain.shares import Share, Shares, families
from vmfabric.ipam.domain.units import Units


@dataclass(slots=True)
class ShareStock:
    """What the VMs of one node, or of every node, may have of one family."""

    units: Units
    allocator: Allocator
    resting: int = 0
    """How many of those that are taken rest in quarantine."""
    reserved: int = 0
    """How many of those that are taken are only kept for somebody."""

    def take_lowest(self) -> HostAddress | None:
        """Take the lowest free address; None when there is none."""
        number = self.allocator.take_lowest()
        return None if number is None else self.units.address_of(number)

    def take(self, address: HostAddress) -> bool:
        """Take this address; False when it is not free."""
        return self.allocator.take(self.units.number_of(address))

    def give_back(self, address: HostAddress) -> None:
        """The address is free again. ValueError when it was not taken: two owners would follow."""
        self.allocator.give_back(self.units.number_of(address))


class PoolStock:
    """One pool: an allocator for each family that it has, or one for each of its nodes."""

    def __init__(
        self,
        spec: PoolSpec,
        withheld: Collection[HostAddress],
        in_use: Iterable[InUse] = (),
        reserved: Iterable[HostAddress] = (),
    ) -> None:
        """`in_use` is what is held or rests, `reserved` what is kept for somebody beside it."""
        self.spec = spec
        self.families = families(spec)
        self._is_shared = not spec.ranges
        self._shares = {family: Shares(spec, family, withheld) for family in self.families}
        taken: dict[tuple[Family, Share], list[int]] = defaultdict(list)
        resting: Counter[tuple[Family, Share]] = Counter()
        kept: Counter[tuple[Family, Share]] = Counter()
        for each in in_use:
            where, number = self._place(each.address)
            taken[where].append(number)
            resting[where] += each.rests_until is not None
        for address in reserved:
            where, number = self._place(address)
            taken[where].append(number)
            kept[where] += 1
        self._stocks = {
            (family, share): ShareStock(
                shares.units, Allocator(ranges, taken[family, share]), resting[family, share], kept[family, share]
            )
            for family, shares in self._shares.items()
            for share, ranges in shares.ranges.items()
        }

    def for_vms_of(self, node: NodeName, family: Family) -> ShareStock | None:
        """What the VMs of this node may have; None when that is nothing, however empty the pool is."""
        return self._stocks.get((family, None if self._is_shared else node))

    def has_block_with(self, address: HostAddress) -> bool:
        """Whether the address lies in the pool, be it given or not."""
        return any(address in block for block in self.spec.blocks)

    def around(self, address: HostAddress) -> ShareStock | None:
        """Where this address is given; None when it never is."""
        family = Family.of(address)
        shares = self._shares.get(family)
        if shares is None or not shares.holds(address):
            return None
        return self._stocks[family, shares.share_with(address)]

    def units(self, family: Family) -> Units:
        """What it gives of a family that it has."""
        return self._shares[family].units

    def of_family(self, family: Family) -> Iterator[tuple[Share, ShareStock]]:
        """Every share of a family."""
        return ((share, stock) for (of, share), stock in self._stocks.items() if of is family)

    def free_ranges(self, family: Family, of: Share = None) -> Iterator[Range]:
        """The numbers of what may be given now, ascending: to the VMs of one node, or as None to any."""
        stocks = [stock for share, stock in self.of_family(family) if of in {None, share}]
        return merge(*(stock.allocator.free_ranges() for stock in stocks))

    def total(self, family: Family) -> int:
        """How many addresses of a family there are to give."""
        return sum(stock.allocator.total for _, stock in self.of_family(family))

    def free(self, family: Family) -> int:
        """How many of them nobody has."""
        return sum(stock.allocator.free for _, stock in self.of_family(family))

    def held(self, family: Family) -> int:
        """How many of them VMs hold."""
        return self.total(family) - self.free(family) - self.resting(family) - self.reserved(family)

    def resting(self, family: Family) -> int:
        """How many addresses of a family rest in quarantine."""
        return sum(stock.resting for _, stock in self.of_family(family))

    def reserved(self, family: Family) -> int:
        """How many addresses of a family are only kept for somebody."""
        return sum(stock.reserved for _, stock in self.of_family(family))

    def _place(self, address: HostAddress) -> tuple[tuple[Family, Share], int]:
        """The share that has the address, and its number there."""
        family = Family.of(address)
        shares = self._shares[family]
        number = shares.units.number_of(address)
        return (family, shares.of(number)), number
