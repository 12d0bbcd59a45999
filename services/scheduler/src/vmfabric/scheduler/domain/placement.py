"""Which node a VM goes to: filters say who can take it, weighers who should."""

from collections.abc import Sequence
from dataclasses import dataclass

from vmfabric.contract.cluster import Placement
from vmfabric.contract.names import NodeName
from vmfabric.scheduler.domain.candidate import Candidate, Offer, Wish
from vmfabric.scheduler.domain.filters import FILTERS
from vmfabric.scheduler.domain.weighers import WEIGHERS


@dataclass(frozen=True, slots=True)
class Decision:
    """The node, or why each was refused."""

    node: NodeName | None
    refusals: dict[NodeName, str]


def choose(wish: Wish, candidates: Sequence[Candidate], rules: Placement) -> Decision:
    """The best of the nodes that fit; of two equal ones the first by name."""
    refusals: dict[NodeName, str] = {}
    fitting: list[Offer] = []
    for candidate in candidates:
        offer = Offer.of(candidate, wish, rules.overcommit)
        reason = next((reason for refuses in FILTERS if (reason := refuses(offer))), None)
        if reason is None:
            fitting.append(offer)
        else:
            refusals[candidate.name] = reason
    if not fitting:
        return Decision(None, refusals)
    weigh = WEIGHERS[rules.policy]
    best = min(fitting, key=lambda offer: (-weigh(offer), offer.candidate.name))
    return Decision(best.candidate.name, refusals)
