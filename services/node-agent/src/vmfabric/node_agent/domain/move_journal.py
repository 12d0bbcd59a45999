"""What has to be known of an uplink's way into its bridge after a crash, and what becomes of it."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from vmfabric.contract.desired import SwitchingNode
from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.actual import Actual, Held
from vmfabric.node_agent.domain.neighbour import Question

AGAIN_SECONDS = 300.0
"""How long after it was taken back it is tried again."""


class Phase(StrEnum):
    """How far it is; see the table."""

    MOVING = "moving"
    CONFIRMED = "confirmed"
    RETURNING = "returning"
    TAKEN_BACK = "taken-back"


class Journal(BaseModel):
    """What has to be known after a crash."""

    model_config = ConfigDict(frozen=True)

    phase: Phase
    node: SwitchingNode
    """What was wanted when it began."""
    uplink: InterfaceName
    has: Held
    """The addresses and routes that belong to the node, wherever they are."""
    reason: str = ""
    """Why it was taken back."""
    again_at: float = 0.0
    """When it is tried once more, in seconds since 1970."""
    boot: str = ""
    """Of the kernel that had it so."""
    was_confirmed: bool = False
    """Whether its gateway has answered before, with the same NIC in the same bridge."""


def of_boot(journal: Journal, boot: str) -> Journal | None:
    """After a reboot all is as the operator's configuration has it: what there was before must not come back."""
    if journal.boot == boot or journal.phase is Phase.TAKEN_BACK:
        return journal
    if journal.phase is Phase.CONFIRMED:
        return journal.model_copy(update={"has": Held(), "boot": boot})
    return None


def answered(journal: Journal) -> Journal:
    """The gateway is there, or there is none to ask."""
    return journal.model_copy(update={"phase": Phase.CONFIRMED, "reason": "", "again_at": 0.0})


def unanswered(journal: Journal, question: Question, actual: Actual, now: float) -> Journal:
    """It was silent for too long."""
    silent = (
        f"{journal.uplink} was moved into {journal.node.bridge}, where the gateway {question.target} did not answer "
        f"within {journal.node.confirm_seconds} s, "
    )
    if journal.phase is Phase.CONFIRMED or (journal.was_confirmed and has_guests(journal, actual)):
        reason = (
            f"{silent}and where it stays, since the gateway has answered there before; is the gateway down? It is "
            f"asked again every {AGAIN_SECONDS / 60:.0f} minutes"
        )
        return journal.model_copy(
            update={"phase": Phase.CONFIRMED, "reason": reason, "again_at": now + AGAIN_SECONDS}
        )
    return _back(journal, f"{silent}so all of it was taken back; is there port security or a VLAN on the switch?")


def failed(journal: Journal, found: str) -> Journal:
    """It is not ended: half of it would cut the node off."""
    if journal.phase is not Phase.MOVING:
        return journal
    return _back(
        journal,
        f"{journal.uplink} was on its way into {journal.node.bridge} when this was in the way: {found}; so all of it "
        "was taken back.",
    )


def elsewhere(journal: Journal) -> Journal:
    """Another uplink or bridge is wanted."""
    reason = f"{journal.uplink} should not be in {journal.node.bridge} any more"
    return journal.model_copy(update={"phase": Phase.RETURNING, "reason": reason})


def _back(journal: Journal, found: str) -> Journal:
    reason = f"{found} It is tried again when the node's values change, and every {AGAIN_SECONDS / 60:.0f} minutes"
    return journal.model_copy(update={"phase": Phase.RETURNING, "reason": reason})


def has_guests(journal: Journal, actual: Actual) -> bool:
    """Whether the bridge has other ports than the uplink."""
    bridge, uplink = journal.node.bridge, journal.uplink
    return any(link.master == bridge for link in actual.links.values() if link.name != uplink)
