"""Who can take a VM: each filter gives the reason why not, or None."""

from collections.abc import Callable

from vmfabric.contract.admin import NodeState
from vmfabric.scheduler.domain.candidate import Offer

Filter = Callable[[Offer], str | None]


def is_asked_for(offer: Offer) -> str | None:
    """The request may name its node."""
    asked = offer.wish.node
    return f"the request asks for {asked}" if asked not in {None, offer.candidate.name} else None


def is_heard(offer: Offer) -> str | None:
    """Nothing is placed on a node whose agent is not heard."""
    match offer.candidate.state:
        case NodeState.JOINED:
            return None
        case NodeState.APPLIED:
            return "its node-agent has not been heard yet"
        case NodeState.LOST:
            return "its node-agent is not heard any more"


def is_open(offer: Offer) -> str | None:
    """Nothing is placed on a node that an operator has drained."""
    return "an operator has it drained; node.undrain ends that" if offer.candidate.is_drained else None


def has_room(offer: Offer) -> str | None:
    """Every resource must suffice, overcommit counted."""
    short = [
        f"{resource.name}: {resource.wanted:g} wanted, {max(resource.total - resource.used, 0):g} free"
        for resource in offer.resources
        if not resource.fits
    ]
    return "; ".join(short) or None


FILTERS: tuple[Filter, ...] = (is_asked_for, is_heard, is_open, has_room)
"""In this order; the first that refuses gives the reason."""
