"""How long to wait for an answer, and when to ask for it again."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from vmfabric.contract.admin import VmPhase
from vmfabric.scheduler.domain.record import Waiting


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds."""

    phase: float = 30.0
    """How long one phase may take."""
    move: float = 600.0
    """How long a guest may take to move: that is copying its memory, not ours to hurry."""
    drain: float = 1.0
    """How long a node goes on forwarding for a guest that has left, once the new node is announced. FRR holds an
    update for 50 ms at each hop, and there are three between the nodes and the core's kernel."""
    first: float = 3.0
    """When to ask again for the first time; each further time after twice as long."""
    longest: float = 30.0
    """The longest time between two askings."""

    def begin(self, now: datetime, phase: VmPhase) -> Waiting:
        """A phase that waits for an answer begins."""
        deadline = self.move if phase is VmPhase.MOVING else self.phase
        first = self.drain if phase is VmPhase.LEAVING else self.first
        return Waiting(since=now, ask_at=now + timedelta(seconds=first), deadline=now + timedelta(seconds=deadline))

    def rest(self, now: datetime, *, is_leased: bool) -> Waiting:
        """A phase begins that has no end; ipam may still have to hear of it."""
        ask_at = None if is_leased else now + timedelta(seconds=self.first)
        return Waiting(since=now, ask_at=ask_at, deadline=None)

    def asked_again(self, waiting: Waiting, now: datetime) -> Waiting:
        """The question has been asked once more."""
        asked = waiting.asked + 1
        pause = min(self.first * 2.0 ** min(asked, 16), self.longest)
        return waiting.model_copy(update={"asked": asked, "ask_at": now + timedelta(seconds=pause)})
