"""A history with two owners is seen, and one that can be is not complained about."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest

from history.ownership import Ownership
from vmfabric.contract.addresses import host_prefix
from vmfabric.contract.ip import AllocatedAddress, IpAllocated, IpReleased
from vmfabric.contract.model import Event
from vmfabric.contract.route import AnnouncedRoute, RouteAnnounced

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
ADDRESS = ip_address("198.51.100.7")


def allocated(vm: str, generation: int) -> IpAllocated:
    given = AllocatedAddress(address=ADDRESS, pool="main")
    return IpAllocated(cluster="msk", vm=vm, node="n1", generation=generation, addresses=(given,))


def released(vm: str, generation: int) -> IpReleased:
    return IpReleased(cluster="msk", vm=vm, node="n1", generation=generation, addresses=(ADDRESS,))


def announced(vm: str, generation: int) -> RouteAnnounced:
    route = AnnouncedRoute(prefix=host_prefix(ADDRESS), communities=(), reflectors=(ADDRESS,))
    return RouteAnnounced(cluster="msk", vm=vm, node="n1", generation=generation, routes=(route,))


def complaints(*history: tuple[float, Event]) -> list[str]:
    ownership = Ownership(lambda _pool: timedelta(seconds=10))
    return [
        sentence
        for seconds, event in history
        for sentence in ownership.hear(event, BEGIN + timedelta(seconds=seconds))
    ]


@pytest.mark.parametrize(
    "history",
    [
        [(0, allocated("vm1", 1)), (1, announced("vm1", 1)), (2, released("vm1", 1)), (13, allocated("vm2", 2))],
        [(0, allocated("vm1", 1)), (1, allocated("vm1", 1)), (2, allocated("vm1", 5)), (3, released("vm1", 1))],
        [(0, allocated("vm1", 1)), (1, released("vm1", 1)), (2, allocated("vm1", 1)), (13, allocated("vm2", 2))],
        [(0, released("vm1", 1)), (1, allocated("vm1", 1)), (13, allocated("vm2", 2))],
        [(0, allocated("vm1", 1)), (2, released("vm1", 1)), (13, allocated("vm2", 2)), (1, announced("vm1", 1))],
        [(0, allocated("vm1", 1)), (7, released("vm1", 1)), (2, released("vm1", 1)), (13, allocated("vm2", 2))],
    ],
    ids=[
        "one after the other",
        "moved and said again",
        "an answer that comes late",
        "overtaken by its release",
        "an old word kept late",
        "its release said again before the first word of it came",
    ],
)
def test_what_can_be(history: list[tuple[float, Event]]) -> None:
    assert complaints(*history) == []


@pytest.mark.parametrize(
    ("history", "complaint"),
    [
        ([(0, allocated("vm1", 1)), (20, allocated("vm2", 2))], "is given to msk/vm2 without having been released"),
        (
            [(0, allocated("vm1", 1)), (1, released("vm1", 1)), (5, allocated("vm2", 2))],
            "is given to msk/vm2 4.000 s after it was released",
        ),
        ([(0, allocated("vm1", 1)), (1, announced("vm2", 2))], "is msk/vm1's, and route.announced of msk/vm2 has it"),
        (
            [(0, allocated("vm1", 4)), (1, released("vm1", 3)), (20, allocated("vm2", 5))],
            "is given to msk/vm2 without having been released",
        ),
    ],
    ids=["two owners", "no rest", "announced by another", "a release of an older stay"],
)
def test_what_cannot_be(history: list[tuple[float, Event]], complaint: str) -> None:
    assert [sentence for sentence in complaints(*history) if complaint in sentence]


def test_an_old_word_after_the_stream_was_lost_begins_nothing() -> None:
    ownership = Ownership(lambda _pool: timedelta(seconds=10))
    ownership.forget(BEGIN + timedelta(seconds=5))
    late = ownership.hear(allocated("vm1", 1), BEGIN + timedelta(seconds=1))
    after = ownership.hear(allocated("vm2", 2), BEGIN + timedelta(seconds=6))
    assert [*late, *after] == []
