"""All nodes of a cluster in the order in which they would take a VM."""

from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from vmfabric.contract.cluster import Placement
from vmfabric.contract.names import NodeName
from vmfabric.contract.placement import OtherNode
from vmfabric.scheduler.domain.candidate import Candidate
from vmfabric.scheduler.domain.filters import FILTERS
from vmfabric.scheduler.domain.offer import Offer
from vmfabric.scheduler.domain.weighers import weigh
from vmfabric.scheduler.domain.wish import Wish

_SHOWN = 50
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Decision:
    """The node, or that none fits; and why not the others."""

    node: NodeName | None
    weights: Mapping[str, float] = field(default_factory=dict)
    others: tuple[OtherNode, ...] = ()
    rest: int = 0
    """How many nodes are not named."""

    @property
    def refusals(self) -> dict[NodeName, str]:
        """Why those that are named and do not fit do not."""
        return {other.node: other.refused for other in self.others if other.refused is not None}

    @property
    def looked_at(self) -> int:
        """How many nodes there are."""
        return len(self.others) + self.rest + (self.node is not None)


class Ranking:
    """Of one wish. A node that has changed is looked at again, the others are not."""

    def __init__(self, wish: Wish, candidates: Mapping[NodeName, Candidate], rules: Placement) -> None:
        """`candidates` is looked into again, and not copied."""
        self._wish = wish
        self._candidates = candidates
        self._rules = rules
        self._refusals: dict[NodeName, str] = {}
        self._keys = {name: self._key(name) for name in candidates}
        self._order = sorted(self._keys.values())
        """The heaviest first, of two equal ones the first by name; behind those that fit the others."""

    def look_again(self, name: NodeName) -> None:
        """A node has changed."""
        before, now = self._keys[name], self._key(name)
        del self._order[bisect_left(self._order, before)]
        insort(self._order, now)
        self._keys[name] = now

    def decision(self, shortage: str | None) -> Decision:
        """`shortage`: why none of those that fit may take it."""
        fitting = 0 if shortage else bisect_left(self._order, (inf, ""))
        lighter = self._order[1 : min(fitting, 1 + max(_SHOWN // 2, _SHOWN - len(self._order) + fitting))]
        refused = self._order[fitting : fitting + _SHOWN - len(lighter)]
        others = (
            *(OtherNode(node=name, weight=round(-key, _DIGITS)) for key, name in lighter),
            *(OtherNode(node=name, refused=self._refusals.get(name, shortage)) for _, name in refused),
        )
        if not fitting:
            return Decision(None, others=others, rest=len(self._order) - len(others))
        best = self._order[0][1]
        parts = weigh(self._offer(best), self._rules.weights)
        weights = {name: round(weight, _DIGITS) for name, weight in parts.items()}
        return Decision(best, weights, others, len(self._order) - len(others) - 1)

    def _key(self, name: NodeName) -> tuple[float, NodeName]:
        offer = self._offer(name)
        reason = next((reason for refuses in FILTERS if (reason := refuses(offer))), None)
        if reason is not None:
            self._refusals[name] = reason
            return inf, name
        self._refusals.pop(name, None)
        return -sum(weigh(offer, self._rules.weights).values()), name

    def _offer(self, name: NodeName) -> Offer:
        return Offer.of(self._candidates[name], self._wish, self._rules)
