"""When to ask again, and when to give up."""

from datetime import UTC, datetime, timedelta

from vmfabric.contract.admin import VmPhase
from vmfabric.scheduler.domain.deadlines import Patience

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_question_is_asked_again_after_three_seconds_then_twice_as_long_up_to_thirty() -> None:
    patience = Patience()
    waiting = patience.begin(START, VmPhase.WIRING)
    asked = [waiting.ask_at]
    for _ in range(6):
        assert waiting.ask_at is not None
        waiting = patience.asked_again(waiting, waiting.ask_at)
        asked.append(waiting.ask_at)
    seconds = [(moment - START).total_seconds() for moment in asked if moment is not None]
    assert seconds == [3, 9, 21, 45, 75, 105, 135]


def test_the_deadline_does_not_move_while_the_question_is_asked_again() -> None:
    patience = Patience(phase=10)
    waiting = patience.begin(START, VmPhase.WIRING)
    assert waiting.deadline == START + timedelta(seconds=10)
    assert patience.asked_again(waiting, START + timedelta(seconds=3)).deadline == waiting.deadline


def test_what_waits_for_nothing_is_never_due() -> None:
    assert Patience().rest(START, is_leased=False).due is not None
    waiting = Patience().rest(START, is_leased=True)
    assert waiting.due is None
    assert not waiting.is_due(START + timedelta(days=365))


def test_an_asking_that_is_asked_for_ever_does_not_overflow() -> None:
    patience = Patience()
    waiting = patience.begin(START, VmPhase.WIRING)
    for _ in range(2000):
        waiting = patience.asked_again(waiting, START)
    assert waiting.ask_at == START + timedelta(seconds=30)
