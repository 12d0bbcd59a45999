"""Why a VM is where it is, in an operator's words."""

from vmfabric.contract.names import NodeName
from vmfabric.contract.placement import OtherNode, PlacementDecision

_NAMED = 5
"""Nodes that the sentence names; `vm.get` has more of them."""


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
