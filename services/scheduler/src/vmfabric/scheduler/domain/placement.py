"""Which node a VM goes to: filters say who can take it, weighers who should."""

from collections.abc import Iterable
from datetime import datetime

from vmfabric.contract.cluster import Placement
from vmfabric.contract.placement import Cause, PlacementDecision
from vmfabric.scheduler.domain.candidate import Candidate
from vmfabric.scheduler.domain.headroom import Headroom
from vmfabric.scheduler.domain.ranking import Decision, Ranking
from vmfabric.scheduler.domain.wish import Wish

_REMEMBERED = 32
"""Wishes: as many sizes of VMs as a hosting company has."""


class Market:
    """The nodes of a cluster as they are now. The same wish again costs only what has changed since, unless it is one
    for company: that moves.
    """

    def __init__(self, candidates: Iterable[Candidate], rules: Placement) -> None:
        self._candidates = {candidate.name: candidate for candidate in candidates}
        self._rules = rules
        self._rankings: dict[Wish, Ranking] = {}
        self.drained = frozenset(name for name, candidate in self._candidates.items() if candidate.is_drained)
        """Nodes whose VMs have to leave."""
        self._headroom = Headroom(self._candidates.values(), rules) if rules.headroom_nodes else None

    def change(self, candidate: Candidate) -> None:
        """A node carries something else than before."""
        name = candidate.name
        if self._headroom is not None:
            self._headroom.add(candidate.used + -self._candidates[name].used)
        self._candidates[name] = candidate
        for ranking in self._rankings.values():
            ranking.look_again(name)

    def choose(self, wish: Wish) -> Decision:
        """The heaviest of the nodes that fit; of two equal ones the first by name."""
        shortage = self._headroom.shortage(wish.takes) if self._headroom is not None and wish.is_new else None
        return self._ranking(wish).decision(shortage)

    def _ranking(self, wish: Wish) -> Ranking:
        if wish.company:
            return Ranking(wish, self._candidates, self._rules)
        if wish not in self._rankings:
            if len(self._rankings) == _REMEMBERED:
                del self._rankings[next(iter(self._rankings))]
            self._rankings[wish] = Ranking(wish, self._candidates, self._rules)
        return self._rankings[wish]


def choose(wish: Wish, candidates: Iterable[Candidate], rules: Placement) -> Decision:
    """Of these nodes, once."""
    return Market(candidates, rules).choose(wish)


def recorded(decision: Decision, cause: Cause, rules: Placement, at: datetime) -> PlacementDecision:
    """As it is kept with its VM."""
    return PlacementDecision(
        at=at,
        cause=cause,
        policy=rules.policy,
        node=decision.node,
        weights=dict(decision.weights),
        others=decision.others,
        rest=decision.rest,
    )
