"""What ends by itself."""

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from vmfabric.ipam.domain.deadlines import Deadlines

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ADDRESSES = st.integers(0, 3).map(lambda number: IPv4Address(f"10.0.0.{number}"))
MOMENTS = st.none() | st.integers(0, 3).map(lambda seconds: NOW + timedelta(seconds=seconds))


@given(st.lists(st.tuples(ADDRESSES, MOMENTS)))
def test_of_whatever_was_set_and_dropped_the_last_word_is_due_once(
    said: list[tuple[IPv4Address, datetime | None]],
) -> None:
    deadlines = Deadlines()
    for address, until in said:
        if until is None:
            deadlines.drop(address)
        else:
            deadlines.set(address, until)
    due = deadlines.due(NOW + timedelta(seconds=2), limit=100)
    last = dict(said)
    assert sorted(due) == sorted(it for it, until in last.items() if until and until <= NOW + timedelta(seconds=2))
