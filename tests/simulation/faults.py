"""What may go wrong, how often, and how often it did."""

from collections import Counter
from enum import StrEnum
from random import Random


class Fault(StrEnum):
    """A kind of misfortune."""

    CRASH = "a process dies between two steps"
    CRASH_AFTER_WORDS = "a process dies when the bus has kept what it said"
    CRASH_IN_KERNEL = "a node-agent dies in the middle of a batch of kernel operations"
    CRASH_IN_FRR = "a bgp-announcer dies in the middle of a batch of configuration"
    REBOOT = "a node reboots"
    NODE_LOST = "a node is lost and evacuated, and returns"
    NODE_UNHEARD = "a node is evacuated though its kernel and its FRR go on"
    SLOW = "a step takes long"
    DELIVERY_LOST = "a message is delivered to nobody"
    DELIVERY_LATE = "a message is overtaken by later ones"
    DELIVERY_TWICE = "a message is delivered twice at once"
    DELIVERY_AGAIN = "a message comes once more long after it was acknowledged"
    ACK_LOST = "an acknowledgement is lost"
    PUBLISH_LOST = "a publication is lost"
    PUBLISH_UNKNOWN = "a publication is kept, but its publisher does not hear of it"
    PUBLISH_LATE = "a publication arrives after its publisher has given it up"
    CUT = "a process loses its connection to the bus"
    BUS_EMPTIED = "the bus loses all of its data"
    STORE_AWAY = "a call to a store fails"
    COMMIT_UNKNOWN = "a commit is done, but its caller hears of a lost connection"
    KERNEL_UNREADABLE = "a kernel cannot be read"
    KERNEL_REFUSES = "a kernel refuses an operation"
    DRIFT = "somebody deletes a link, a route or a guard"
    FRR_SILENT = "FRR does not answer"
    FRR_DEAF = "bgpd does not hear zebra any more"
    FRR_RESTART = "FRR comes back with nothing"
    SESSION_DOWN = "a reflector is away"
    DRAIN = "a node is drained, and used again"


_OFTEN = {
    Fault.CRASH: 0.0015,
    Fault.CRASH_AFTER_WORDS: 0.03,
    Fault.CRASH_IN_KERNEL: 0.05,
    Fault.CRASH_IN_FRR: 0.3,
    Fault.SLOW: 0.1,
    Fault.DELIVERY_LOST: 0.05,
    Fault.DELIVERY_LATE: 0.1,
    Fault.DELIVERY_TWICE: 0.05,
    Fault.DELIVERY_AGAIN: 0.1,
    Fault.ACK_LOST: 0.05,
    Fault.PUBLISH_LOST: 0.02,
    Fault.PUBLISH_UNKNOWN: 0.02,
    Fault.PUBLISH_LATE: 0.02,
    Fault.STORE_AWAY: 0.003,
    Fault.COMMIT_UNKNOWN: 0.02,
    Fault.KERNEL_UNREADABLE: 0.03,
    Fault.KERNEL_REFUSES: 0.03,
    Fault.FRR_SILENT: 0.01,
}
"""The chance of each at every opportunity."""

EVENTS = (
    Fault.CRASH,
    Fault.REBOOT,
    Fault.NODE_LOST,
    Fault.NODE_UNHEARD,
    Fault.CUT,
    Fault.DRIFT,
    Fault.FRR_DEAF,
    Fault.FRR_RESTART,
    Fault.SESSION_DOWN,
    Fault.BUS_EMPTIED,
    Fault.DRAIN,
)
"""Those that happen at a moment of their own."""

SHAKING = frozenset(
    {
        Fault.REBOOT,
        Fault.NODE_LOST,
        Fault.DRIFT,
        Fault.FRR_DEAF,
        Fault.FRR_RESTART,
        Fault.SESSION_DOWN,
        Fault.CRASH_IN_FRR,
    }
)
"""Those that make an announcement go away for a while."""

_CALM_SHARE = 0.1
_INTENSITIES = (0.0, 0.5, 1.0, 2.0)


class Faults:
    """The dice. Each seed has its own mood: some kinds do not happen at all, others often; one in ten is calm."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.is_on = False
        self.counts: Counter[Fault] = Counter()
        self.is_calm = random.random() < _CALM_SHARE
        self._chance = {
            kind: 0.0 if self.is_calm else often * random.choice(_INTENSITIES) for kind, often in _OFTEN.items()
        }

    def roll(self, kind: Fault) -> bool:
        """Whether it happens now."""
        if not self.is_on or self.random.random() >= self._chance[kind]:
            return False
        self.counts[kind] += 1
        return True

    def happens(self, kind: Fault) -> None:
        """It happens, by a decision made elsewhere."""
        self.counts[kind] += 1

    def between(self, least: float, most: float) -> float:
        """Seconds."""
        return self.random.uniform(least, most)
