"""Time, when somebody sets the wall clock."""

from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest

from vmfabric.runtime.clock import SystemClock

LITTLE = timedelta(milliseconds=200)


class Wall:
    """The machine's wall clock, which can be set."""

    def __init__(self) -> None:
        self.set_by = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.set_by


@pytest.mark.parametrize("hours", [-20, -1, 1, 20])
def test_a_wall_clock_that_is_set_does_not_leap(hours: int) -> None:
    wall = Wall()
    clock = SystemClock(wall)
    before = clock.now()
    wall.set_by = timedelta(hours=hours)
    assert timedelta() <= clock.now() - before < LITTLE


@pytest.mark.parametrize(("hours", "faster"), [(-1, 0.95), (0, 1.0), (1, 1.05)])
def test_it_is_followed_slowly(monkeypatch: pytest.MonkeyPatch, hours: int, faster: float) -> None:
    wall = Wall()
    clock = SystemClock(wall)
    wall.set_by = timedelta(hours=hours)
    before = clock.now()
    later = monotonic() + 100
    monkeypatch.setattr("time.monotonic", lambda: later)
    wall.set_by += timedelta(seconds=100)
    assert abs((clock.now() - before).total_seconds() - 100 * faster) < 1


def test_what_is_right_again_stays_right(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = Wall()
    clock = SystemClock(wall)
    wall.set_by = timedelta(seconds=3)
    later = monotonic() + 100
    monkeypatch.setattr("time.monotonic", lambda: later)
    wall.set_by += timedelta(seconds=100)
    assert abs(clock.now() - wall()) < LITTLE


def test_a_machine_that_had_no_clock_is_followed_at_once() -> None:
    wall = Wall()
    wall.set_by = -timedelta(days=365)
    clock = SystemClock(wall)
    wall.set_by = timedelta()
    assert abs(clock.now() - wall()) < LITTLE
