"""When a program that ends by itself is started again."""

from dataclasses import dataclass

_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 60.0
_STEADY_SECONDS = 60.0
"""Who has run for so long is started again as if for the first time."""


@dataclass(frozen=True, slots=True)
class Restarts:
    """The next start of a program that does not run is due at `due`, in seconds of any clock that does not jump."""

    due: float = 0.0
    pause: float = 0.0

    def started(self, now: float) -> "Restarts":
        """It was started, or tried to: each time in a row that it ends soon, the next pause is twice as long."""
        is_again = self.pause > 0 and now < self.due + _STEADY_SECONDS
        pause = min(2 * self.pause, _LONGEST_SECONDS) if is_again else _FIRST_SECONDS
        return Restarts(now + pause, pause)
