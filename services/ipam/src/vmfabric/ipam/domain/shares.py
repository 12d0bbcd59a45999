"""What a pool may give, and to the VMs of which nodes."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping

from netaddr import IPRange, IPSet

from vmfabric.contract.addresses import Family, HostAddress, Prefix
from vmfabric.contract.names import NodeName
from vmfabric.contract.pool import PoolSpec
from vmfabric.ipam.domain.allocation import Range
from vmfabric.ipam.domain.units import units

Share = NodeName | None
"""Whose VMs may have an address: those of one node, or, as None, those of every node."""


class Shares:
    """What a pool may give of one family, by share and as numbers of its units.

    It is what its blocks have, without what is excluded and what is withheld; where the pool has ranges for nodes,
    only what lies in one of these.
    """

    def __init__(self, spec: PoolSpec, family: Family, withheld: Collection[HostAddress]) -> None:
        self.units = units(spec, family)
        rest = _set_of(spec.blocks, family) - _set_of(spec.exclude, family)
        rest -= IPSet([str(address) for address in withheld if Family.of(address) is family])
        self.ranges: Mapping[Share, tuple[Range, ...]] = (
            {node: self._ascending(rest & own) for node, own in self._sets_of_nodes(spec)}
            if spec.ranges
            else {None: self._ascending(rest)}
        )
        self._known = sorted((each, share) for share, ranges in self.ranges.items() for each in ranges)
        self._firsts = [each.first for each, _ in self._known]

    def holds(self, address: HostAddress) -> bool:
        """Whether the address may be given at all."""
        number = self.units.number_of(address)
        index = bisect_right(self._firsts, number) - 1
        return index >= 0 and number <= self._known[index][0].last

    def share_with(self, address: HostAddress) -> Share:
        """The share that has the address, which must be held."""
        return self.of(self.units.number_of(address))

    def of(self, number: int) -> Share:
        """The same of a unit's number."""
        return self._known[bisect_right(self._firsts, number) - 1][1]

    def _ascending(self, addresses: IPSet) -> tuple[Range, ...]:
        found = (self.units.inside(Range(each.first, each.last)) for each in addresses.iter_ipranges())
        return tuple(each for each in found if each is not None)

    def _sets_of_nodes(self, spec: PoolSpec) -> Iterator[tuple[NodeName, IPSet]]:
        for node, ranges in spec.ranges.items():
            whole = [self.units.whole(it.first, it.last) for it in ranges if it.family is self.units.family]
            if whole:
                own = [IPRange(str(first), str(last)) for first, last in whole]
                yield node, IPSet([cidr for each in own for cidr in each.cidrs()])


def families(spec: PoolSpec) -> tuple[Family, ...]:
    """The families that the pool has blocks of, IPv4 first."""
    found = {Family.of(block) for block in spec.blocks}
    return tuple(family for family in Family if family in found)


def _set_of(prefixes: Iterable[Prefix], family: Family) -> IPSet:
    return IPSet([str(prefix) for prefix in prefixes if Family.of(prefix) is family])
