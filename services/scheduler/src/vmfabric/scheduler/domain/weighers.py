"""Who should take a VM: the node with the highest sum does."""

from collections.abc import Callable, Mapping

from vmfabric.contract.cluster import Policy, Weights
from vmfabric.scheduler.domain.offer import Offer

Weigher = Callable[[Offer], float]


def room(offer: Offer) -> float:
    """A node's K is the smallest of its resources': K = (T - U) / T, T with overcommit, U with this VM."""
    left = min(resource.free_share for resource in offer.resources)
    match offer.policy:
        case Policy.SPREAD:
            return left
        case Policy.PACK:
            return -left


def groups(offer: Offer) -> float:
    """The soft rules of its groups: one for each VM there that it is drawn to, less one for each that it avoids."""
    node = offer.candidate.name
    return sum(
        company.on.get(node, 0) * (1.0 if company.keeps_together else -1.0)
        for company in offer.wish.company
        if not company.rule.hard
    )


WEIGHERS: Mapping[str, Weigher] = {"room": room, "groups": groups}
"""By their names in `Weights`."""


def weigh(offer: Offer, weights: Weights) -> dict[str, float]:
    """The parts of the weight."""
    return {name: getattr(weights, name) * weigher(offer) for name, weigher in WEIGHERS.items()}
