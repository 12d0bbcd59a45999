"""Who should take a VM: the highest weight does."""

from collections.abc import Callable, Mapping

from vmfabric.contract.cluster import Policy
from vmfabric.scheduler.domain.candidate import Offer

Weigher = Callable[[Offer], float]


def room_left(offer: Offer) -> float:
    """A node's K is the smallest of its resources': K = (T - U) / T, T with overcommit, U with this VM."""
    return min(resource.free_share for resource in offer.resources)


def fullness(offer: Offer) -> float:
    """The other way round."""
    return -room_left(offer)


WEIGHERS: Mapping[Policy, Weigher] = {Policy.SPREAD: room_left, Policy.PACK: fullness}
