"""Time, passed in."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

_SLEW = 0.05
"""By this share of the time that passes a wrong clock is corrected."""
_NO_CLOCK = timedelta(days=1)
"""More than that off it is followed at once."""
_OFF = timedelta(seconds=2)
"""More than that off is said."""

log = structlog.get_logger()


class Clock(Protocol):
    """What a service may know of time."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...


class SystemClock:
    """The wall clock, which does not leap when somebody sets it: it goes quicker or slower until it is right.

    So a time server that corrects an hour ends no deadline, no quarantine and no memory early, and none of them an
    hour late. What is more than a day off was no clock but a machine that has just booted, and is followed at once.
    """

    def __init__(self, wall: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._wall = wall
        self._now = wall()
        self._is_off = False
        self._read_at = time.monotonic()

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        read_at = time.monotonic()
        passed = timedelta(seconds=read_at - self._read_at)
        self._read_at = read_at
        self._now += passed
        behind = self._wall() - self._now
        if abs(behind) > _NO_CLOCK:
            log.warning("clock.set", by=str(behind), todo="none: it is followed at once")
            self._now += behind
        else:
            self._notice(behind)
            self._now += max(min(behind, passed * _SLEW), -passed * _SLEW)
        return self._now

    def _notice(self, behind: timedelta) -> None:
        is_off = abs(behind) > _OFF
        if is_off and not self._is_off:
            log.warning(
                "clock.set", by=str(behind), todo="none: it is followed slowly; keep clocks with chrony or ntp"
            )
        self._is_off = is_off

    def monotonic(self) -> float:
        """Seconds since some moment in the past."""
        return time.monotonic()
