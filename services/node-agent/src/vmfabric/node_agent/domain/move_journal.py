"""What has to be known of an uplink's way into its bridge after a crash, and what becomes of it."""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from vmfabric.contract.desired import SwitchingNode
from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.actual import Actual, Held
from vmfabric.node_agent.domain.neighbour import Question

AGAIN_SECONDS = 300.0
"""How long after it was taken back it is tried again."""
_MOVE_SECONDS = 5.0
"""What the kernel may take for the move itself, and the agent for its next start after a crash."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, in ways that outlive the process."""

    wall: float
    """Seconds since 1970, as far as somebody has set the clock."""
    since_boot: float
    """Seconds, those that the machine slept included."""
    boot: str
    """Another one after each boot."""


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
    deadline: float = 0.0
    """When a move that is not confirmed is taken back, whoever was killed meanwhile; in seconds since the boot."""
    again_at: float = 0.0
    """When it is tried once more, in seconds since 1970."""
    boot: str = ""
    """Of the kernel that had it so."""
    was_confirmed: bool = False
    """Whether its gateway has answered before, with the same NIC in the same bridge."""


def begun(node: SwitchingNode, uplink: InterfaceName, has: Held, now: Moment, *, was_confirmed: bool) -> Journal:
    """A move, before anything is done."""
    return Journal(
        phase=Phase.MOVING,
        node=node,
        uplink=uplink,
        has=has,
        deadline=now.since_boot + _MOVE_SECONDS + node.confirm_seconds,
        boot=now.boot,
        was_confirmed=was_confirmed,
    )


def is_late(journal: Journal, actual: Actual, now: Moment) -> bool:
    """Whether the move was to be confirmed before, and can be taken back."""
    return now.since_boot >= journal.deadline and not _stays(journal, actual)


def patience(journal: Journal, now: Moment) -> float:
    """How many seconds the gateway may be silent."""
    left = journal.deadline - now.since_boot
    return min(journal.node.confirm_seconds, left) if left > 0 else journal.node.confirm_seconds


def rests(journal: Journal, node: SwitchingNode, now: Moment) -> bool:
    """Whether it was taken back, and is not tried again yet."""
    return journal.phase is Phase.TAKEN_BACK and journal.node == node and now.wall < journal.again_at


def at_once(journal: Journal) -> Journal:
    """Somebody does not want to wait for the next try."""
    return journal.model_copy(update={"again_at": 0.0})


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


def unanswered(
    journal: Journal, question: Question, actual: Actual, now: Moment, *, was_asked: bool = True
) -> Journal:
    """It was silent for too long, or nobody was there to ask it in time."""
    found = (
        f"the gateway {question.target} did not answer within {journal.node.confirm_seconds} s"
        if was_asked
        else f"the node-agent was away until the gateway {question.target} should have answered"
    )
    silent = f"{journal.uplink} was moved into {journal.node.bridge}, where {found}, "
    if journal.phase is Phase.CONFIRMED or _stays(journal, actual):
        reason = (
            f"{silent}and where it stays, since the gateway has answered there before; is the gateway down? It is "
            f"asked again with node.retry, and every {AGAIN_SECONDS / 60:.0f} minutes"
        )
        return journal.model_copy(
            update={"phase": Phase.CONFIRMED, "reason": reason, "again_at": now.wall + AGAIN_SECONDS}
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


def interrupted(journal: Journal) -> Journal:
    """Nobody was there to end it in time."""
    return failed(journal, "the node-agent was away until the gateway should have answered")


def elsewhere(journal: Journal) -> Journal:
    """Another uplink or bridge is wanted."""
    reason = f"{journal.uplink} should not be in {journal.node.bridge} any more"
    return journal.model_copy(update={"phase": Phase.RETURNING, "reason": reason})


def _back(journal: Journal, found: str) -> Journal:
    reason = (
        f"{found} It is tried again with node.retry, when the node's values change, and every "
        f"{AGAIN_SECONDS / 60:.0f} minutes"
    )
    return journal.model_copy(update={"phase": Phase.RETURNING, "reason": reason})


def _stays(journal: Journal, actual: Actual) -> bool:
    """Guests that were reached are rather left than cut off."""
    return journal.was_confirmed and has_guests(journal, actual)


def has_guests(journal: Journal, actual: Actual) -> bool:
    """Whether the bridge has other ports than the uplink."""
    bridge, uplink = journal.node.bridge, journal.uplink
    return any(link.master == bridge for link in actual.links.values() if link.name != uplink)
