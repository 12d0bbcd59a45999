"""Who can take a VM: each filter gives the reason why not, or None."""

from collections.abc import Callable

from vmfabric.contract.admin import NodeState
from vmfabric.contract.cluster import Placement
from vmfabric.scheduler.domain.candidate import Candidate, Wish, resources

Filter = Callable[[Wish, Candidate, Placement], str | None]


def is_asked_for(wish: Wish, candidate: Candidate, _rules: Placement) -> str | None:
    """The request may name its node."""
    return f"the request asks for {wish.node}" if wish.node not in {None, candidate.name} else None


def is_heard(_wish: Wish, candidate: Candidate, _rules: Placement) -> str | None:
    """Nothing is placed on a node whose agent is not heard."""
    match candidate.state:
        case NodeState.JOINED:
            return None
        case NodeState.APPLIED:
            return "its node-agent has not been heard yet"
        case NodeState.LOST:
            return "its node-agent is not heard any more"


def has_room(wish: Wish, candidate: Candidate, rules: Placement) -> str | None:
    """Every resource must suffice, overcommit counted."""
    short = [
        f"{resource.name}: {resource.wanted:g} wanted, {max(resource.total - resource.used, 0):g} free"
        for resource in resources(wish, candidate, rules.overcommit)
        if not resource.fits
    ]
    return "; ".join(short) or None


FILTERS: tuple[Filter, ...] = (is_asked_for, is_heard, has_room)
"""In this order; the first that refuses gives the reason."""
