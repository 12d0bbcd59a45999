"""Who can take a VM: each filter gives the reason why not, or None."""

from collections.abc import Callable, Iterable

from vmfabric.contract.admin import NodeState
from vmfabric.contract.cluster import Upstream
from vmfabric.scheduler.domain.offer import Offer
from vmfabric.scheduler.domain.wish import Company

Filter = Callable[[Offer], str | None]

_NAMED = 3
"""Labels and nodes that a reason names."""


def is_asked_for(offer: Offer) -> str | None:
    """The request may name its node."""
    asked = offer.wish.node
    return f"the request asks for {asked}" if asked not in {None, offer.candidate.name} else None


def is_another(offer: Offer) -> str | None:
    """Who moves does not come back to where it is."""
    return "it is there now, and is to leave it" if offer.wish.leaves == offer.candidate.name else None


def is_heard(offer: Offer) -> str | None:
    """Nothing is placed on a node whose agent is not heard."""
    match offer.candidate.state:
        case NodeState.JOINED:
            return None
        case NodeState.APPLIED:
            return "its node-agent has not been heard yet"
        case NodeState.LOST:
            return "its node-agent is not heard any more"


def is_set_up(offer: Offer) -> str | None:
    """Nothing is placed on a node that says itself that no VM can work there."""
    return f"its node-agent says: {offer.candidate.problem}" if offer.candidate.problem is not None else None


def is_open(offer: Offer) -> str | None:
    """Nothing is placed on a node that an operator has drained."""
    return "an operator has it drained; node.undrain ends that" if offer.candidate.is_drained else None


def runs_its_kind(offer: Offer) -> str | None:
    """A node may run another kind of guests than its cluster."""
    runs, wanted = offer.candidate.spec.virtualization, offer.wish.virtualization
    return f"it runs {runs}, the cluster's VMs are {wanted}" if runs not in {None, wanted} else None


def has_labels(offer: Offer) -> str | None:
    """Every label that the request names."""
    if not offer.wish.labels:
        return None
    missing = sorted(offer.wish.labels - offer.candidate.spec.labels.items())
    return f"it lacks {_some(f'{key}={value}' for key, value in missing)}" if missing else None


def takes_one_more(offer: Offer) -> str | None:
    """A node may have a largest number of VMs."""
    most, has = offer.candidate.spec.max_vms, offer.candidate.used.vms
    return f"vms: it has {has} of at most {most}" if most is not None and has >= most else None


def has_room(offer: Offer) -> str | None:
    """Every resource must suffice, overcommit counted."""
    short = [
        f"{resource.name}: {resource.wanted:g} wanted, {max(resource.total - resource.used, 0):g} free"
        for resource in offer.resources
        if not resource.fits
    ]
    return "; ".join(short) or None


def has_addresses(offer: Offer) -> str | None:
    """A free address of each family, where nodes have ranges of their own."""
    supply, needs = offer.candidate.supply, offer.wish.needs
    if supply is None or needs is None:
        return None
    return supply.shortage(needs, is_asked_for_each=offer.candidate.spec.upstream is Upstream.ON_LINK)


def is_sent_to(offer: Offer) -> str | None:
    """At a provider, an address that the request has chosen must be one of this node's."""
    foreign = [it for it in offer.wish.sent if not any(it in prefix for prefix in offer.candidate.spec.sent)]
    return f"the provider does not send {_some(map(str, foreign))} to it" if foreign else None


def keeps_company(offer: Offer) -> str | None:
    """The hard rules of its groups."""
    node = offer.candidate.name
    return next((reason for company in offer.wish.company if (reason := _unfit(company, node))), None)


FILTERS: tuple[Filter, ...] = (
    is_asked_for,
    is_another,
    is_heard,
    is_set_up,
    is_open,
    runs_its_kind,
    has_labels,
    takes_one_more,
    has_room,
    has_addresses,
    is_sent_to,
    keeps_company,
)
"""In this order; the first that refuses gives the reason."""


def _unfit(company: Company, node: str) -> str | None:
    rule, there = company.rule, company.on.get(node, 0)
    if rule.hard and company.keeps_together and company.on and not there:
        return f"the VMs of group {rule.group} are on {_some(sorted(company.on))}"
    if rule.hard and not company.keeps_together and there:
        return f"it has VMs of group {rule.group}: {there}"
    if node in company.alone_on:
        return f"it has a VM of group {rule.group} that wants no other beside it"
    return None


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _NAMED
    return ", ".join(listed[:_NAMED]) + (f" and {more} more" if more > 0 else "")
