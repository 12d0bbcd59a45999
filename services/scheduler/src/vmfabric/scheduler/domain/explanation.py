"""Why a VM is where it is and what is wrong with it, in an operator's words."""

from collections.abc import Iterable

from vmfabric.contract.explanation import Finding
from vmfabric.contract.names import NodeName
from vmfabric.contract.placement import OtherNode, PlacementDecision

_NAMED = 5
"""Nodes that the sentence names; `vm.get` has more of them."""

CAUSES = (
    "node",
    "ipam",
    "bucket",
    "node-agent",
    "kernel",
    "bgp-announcer",
    "frr",
    "reflectors",
    "dhcp",
    "scheduler",
)
"""What findings are about: what is wrong with one may be why something is wrong with those behind it. The scheduler
only waits for what all the others do."""


def cause(findings: Iterable[Finding]) -> Finding | None:
    """Of what is not right, what is nearest to the root; of two that are as near, the first. None: all is right."""
    ranks = {about: rank for rank, about in enumerate(CAUSES)}
    wrong = [it for it in findings if not it.is_right]
    return min(wrong, key=lambda it: ranks.get(it.about, len(CAUSES)), default=None)


def why_there(decision: PlacementDecision) -> str:
    """One sentence."""
    parts = " + ".join(f"{name} {weight:g}" for name, weight in decision.weights.items())
    said = (
        f"{decision.policy} chose {decision.node} for the {decision.cause} at {decision.at:%Y-%m-%d %H:%M:%S} UTC, "
        f"with the weight {sum(decision.weights.values()):g} ({parts})"
    )
    if not decision.others:
        return f"{said}; there was no other node"
    more = len(decision.others) - _NAMED + decision.rest
    named = "; ".join(map(_words, decision.others[:_NAMED]))
    return f"{said}. The others: {named}" + (f"; and {more} more" if more > 0 else "")


def unanswered(service: str, node: NodeName) -> str:
    """What to say of a node's service that was asked."""
    return f"the {service} of {node} does not answer: is it running, and does it reach the bus?"


def _words(other: OtherNode) -> str:
    return f"{other.node}: {other.refused or f'weight {other.weight:g}'}"
