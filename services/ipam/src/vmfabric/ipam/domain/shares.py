"""What a pool may give, and to the VMs of which nodes."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping

from netaddr import IPRange, IPSet

from vmfabric.contract.addresses import Family, HostAddress, Prefix
from vmfabric.contract.names import NodeName
from vmfabric.contract.pool import PoolSpec
from vmfabric.ipam.domain.allocation import Range

Share = NodeName | None
"""Whose VMs may have an address: those of one node, or, as None, those of every node."""


class Shares:
    """The addresses of one family that a pool may give, by share.

    They are those of its blocks, without what is excluded and what is withheld; where the pool has ranges for nodes,
    only what lies in one of these.
    """

    def __init__(self, spec: PoolSpec, family: Family, withheld: Collection[HostAddress]) -> None:
        rest = _set_of(spec.blocks, family) - _set_of(spec.exclude, family)
        rest -= IPSet([str(address) for address in withheld if Family.of(address) is family])
        self.ranges: Mapping[Share, tuple[Range, ...]] = (
            {node: _ascending(rest & own) for node, own in _sets_of_nodes(spec, family)}
            if spec.ranges
            else {None: _ascending(rest)}
        )
        self._known = sorted((each, share) for share, ranges in self.ranges.items() for each in ranges)
        self._firsts = [each.first for each, _ in self._known]

    def holds(self, number: int) -> bool:
        """Whether the address may be given at all."""
        index = bisect_right(self._firsts, number) - 1
        return index >= 0 and number <= self._known[index][0].last

    def of(self, number: int) -> Share:
        """The share that has the address, which must be held."""
        return self._known[bisect_right(self._firsts, number) - 1][1]


def families(spec: PoolSpec) -> tuple[Family, ...]:
    """The families that the pool has blocks of, IPv4 first."""
    found = {Family.of(block) for block in spec.blocks}
    return tuple(family for family in Family if family in found)


def _sets_of_nodes(spec: PoolSpec, family: Family) -> Iterable[tuple[NodeName, IPSet]]:
    for node, ranges in spec.ranges.items():
        own = [IPRange(str(each.first), str(each.last)) for each in ranges if each.family is family]
        if own:
            yield node, IPSet([cidr for each in own for cidr in each.cidrs()])


def _set_of(prefixes: Iterable[Prefix], family: Family) -> IPSet:
    return IPSet([str(prefix) for prefix in prefixes if Family.of(prefix) is family])


def _ascending(addresses: IPSet) -> tuple[Range, ...]:
    return tuple(Range(each.first, each.last) for each in addresses.iter_ipranges())
