"""Why a VM is where it is."""

from datetime import datetime
from enum import StrEnum

from vmfabric.contract.cluster import Policy
from vmfabric.contract.model import Part
from vmfabric.contract.names import NodeName


class Cause(StrEnum):
    """What a node was chosen for."""

    REQUEST = "request"
    MIGRATION = "migration"
    EVACUATION = "evacuation"


class OtherNode(Part):
    """A node that was not chosen."""

    node: NodeName
    weight: float | None = None
    """It fits, and weighs no more than the chosen one."""
    refused: str | None = None
    """Why it does not fit."""


class PlacementDecision(Part):
    """Which node was chosen for a VM, why, and why not the others."""

    at: datetime
    cause: Cause
    policy: Policy
    node: NodeName | None = None
    """None, in the answer to a dry run: none fits."""
    weights: dict[str, float]
    """The parts of the chosen node's weight, which is their sum."""
    others: tuple[OtherNode, ...]
    """At most 50: first those that fit, the heaviest first, then those that do not, by name."""
    rest: int
    """How many nodes are not named here."""
