"""Which addresses a new VM needs, and which the pools have for the VMs of a node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vmfabric.contract.addresses import Family
from vmfabric.contract.addressing import FreeInPool
from vmfabric.contract.names import NodeName, ResourceName
from vmfabric.contract.vm import VmRequested


class Source(NamedTuple):
    """The addresses of one family in a pool."""

    pool: ResourceName
    family: Family


class Need(NamedTuple):
    """One address, of a pool that the request names or of any."""

    family: Family
    pool: ResourceName | None = None


@dataclass(frozen=True, slots=True)
class Needs:
    """The addresses that a new VM has to be given."""

    addresses: tuple[Need, ...] | None = None
    """None: one of each family that its node has."""

    @staticmethod
    def of(request: VmRequested) -> "Needs":
        """Addresses that it has chosen are left out: one that is reserved for it is not free, and it gets it."""
        if request.addresses is None:
            return Needs()
        needs = [Need(wish.family, wish.pool) for wish in request.addresses if wish.address is None]
        return Needs(tuple(sorted(needs, key=lambda need: (need.pool is None, need.pool or "", need.family))))


@dataclass(frozen=True, slots=True)
class Supply:
    """What the VMs of one node may still be given, in the order in which ipam asks the pools."""

    free: Mapping[Source, int]
    of_prefixes: frozenset[ResourceName] = frozenset()
    """Pools that give whole IPv6 prefixes."""

    @staticmethod
    def on(node: NodeName, pools: Sequence[FreeInPool]) -> "Supply":
        """Of a pool that has ranges only what is in those of the node."""
        return Supply(
            {
                Source(each.pool, family): count
                for each in pools
                for family, count in (each.free if each.nodes is None else each.nodes.get(node, {})).items()
            },
            frozenset(each.pool for each in pools if each.ipv6_length < Family.IPV6.host_length),
        )

    def without(self, needs: Needs) -> "Supply":
        """When a VM has been given what it needs, as far as that was there."""
        left, _, _ = self._given(needs)
        return Supply(left, self.of_prefixes)

    def shortage(self, needs: Needs, *, is_asked_for_each: bool = False) -> str | None:
        """Why a VM cannot have what it needs, or None. `is_asked_for_each`: by the node's provider, each address."""
        if needs.addresses is None and not self.free:
            return "no pool has a range for it"
        _, sources, missing = self._given(needs)
        if missing is not None:
            of_pool = f" of pool {missing.pool}" if missing.pool else ""
            return f"no free {missing.family} address{of_pool} for its VMs now"
        whole = [it.pool for it in sources if it.family is Family.IPV6 and it.pool in self.of_prefixes]
        if is_asked_for_each and whole:
            return f"pool {whole[0]} gives whole prefixes, and the provider asks for each address by itself"
        return None

    def _given(self, needs: Needs) -> tuple[Mapping[Source, int], Sequence[Source], Need | None]:
        """What is left, where each address comes from, and the first that was not there."""
        left = dict(self.free)
        sources: list[Source] = []
        missing: Need | None = None
        families = {source.family for source in self.free}
        default = tuple(Need(family) for family in Family if family in families)
        for need in default if needs.addresses is None else needs.addresses:
            source = next((each for each, count in left.items() if count > 0 and _serves(each, need)), None)
            if source is not None:
                left[source] -= 1
                sources.append(source)
            else:
                missing = missing or need
        return left, sources, missing


def _serves(source: Source, need: Need) -> bool:
    return source.family is need.family and need.pool in {None, source.pool}
