"""What follows from something that happened to a VM."""

from dataclasses import dataclass
from datetime import datetime

from vmfabric.contract.admin import VmPhase
from vmfabric.contract.desired import DesiredVm
from vmfabric.contract.model import Event
from vmfabric.scheduler.domain.deadlines import Patience
from vmfabric.scheduler.domain.record import VmRecord


@dataclass(frozen=True, slots=True)
class Turn:
    """The record as it is now, and what to tell the world."""

    record: VmRecord | None
    """None: nothing of the VM is left."""
    events: tuple[Event, ...] = ()
    puts: tuple[DesiredVm, ...] = ()
    purges: tuple[str, ...] = ()
    left_behind: tuple[DesiredVm, ...] = ()
    """What nodes that are lost have to let go when they return; put too."""


def enter(record: VmRecord, phase: VmPhase, now: datetime, patience: Patience) -> VmRecord:
    """The record in a phase that waits for an answer. What was reported as late has no deadline any more."""
    waiting = patience.begin(now, phase)
    if record.reported:
        waiting = waiting.model_copy(update={"deadline": None})
    return record.model_copy(update={"phase": phase, "waiting": waiting})


def rest(record: VmRecord, now: datetime, patience: Patience) -> VmRecord:
    """The record in the phase that no fact ends."""
    waiting = patience.rest(now, is_leased=record.leased == record.generation)
    return record.model_copy(update={"phase": VmPhase.READY, "waiting": waiting, "reported": False})
