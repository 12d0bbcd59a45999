"""Who should take a VM: the highest weight does."""

from collections.abc import Callable, Mapping

from vmfabric.contract.cluster import Placement, Policy
from vmfabric.scheduler.domain.candidate import Candidate, Wish, resources

Weigher = Callable[[Wish, Candidate, Placement], float]


def room_left(wish: Wish, candidate: Candidate, rules: Placement) -> float:
    """A node's K is the smallest of its resources': K = (T - U) / T, T with overcommit, U with this VM."""
    return min(resource.free_share for resource in resources(wish, candidate, rules.overcommit))


def fullness(wish: Wish, candidate: Candidate, rules: Placement) -> float:
    """The other way round."""
    return -room_left(wish, candidate, rules)


WEIGHERS: Mapping[Policy, Weigher] = {Policy.SPREAD: room_left, Policy.PACK: fullness}
