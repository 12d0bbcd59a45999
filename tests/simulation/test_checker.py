"""The simulation sees what it is there to see: services that are broken on purpose are caught within a few seeds."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

import pytest

from simulation.world import run_seed
from vmfabric.contract.dataplane import ROUTE_METRIC
from vmfabric.contract.desired import Presence
from vmfabric.contract.names import NodeName
from vmfabric.ipam.domain import lease
from vmfabric.ipam.domain.lease import Act, Given, Lease, Said, State
from vmfabric.ipam.domain.stock import Stock
from vmfabric.node_agent import agent
from vmfabric.node_agent.domain import forwarding, plan
from vmfabric.node_agent.domain.actual import HostRoute, Link
from vmfabric.node_agent.domain.port import Port
from vmfabric.runtime import mirror
from vmfabric.runtime.mirror import Mirror
from vmfabric.scheduler.domain import evacuation, lifecycle, ranking
from vmfabric.scheduler.domain.filters import FILTERS, has_room, keeps_company
from vmfabric.scheduler.domain.record import Stamp, VmKey, VmRecord
from vmfabric.scheduler.domain.turn import Turn
from vmfabric.scheduler.memory_store import MemoryRows

WITHIN_SEEDS = 200

Break = Callable[[pytest.MonkeyPatch], None]


def no_generation_fence(patch: pytest.MonkeyPatch) -> None:
    """ipam and the scheduler take a late event for one of the generation that they know."""
    heard, acted = lifecycle.advance, lease.act_on

    def advance(record: VmRecord, fact: lifecycle.VmFact, *rest: Any, **named: Any) -> Turn | None:
        return heard(record, fact.model_copy(update={"generation": record.generation}), *rest, **named)

    def act_on(known: Lease, said: Said, generation: int, node: NodeName) -> Act:
        return acted(known, said, max(generation, known.generation), node)

    patch.setattr(lifecycle, "advance", advance)
    patch.setattr("vmfabric.ipam.domain.leasing.act_on", act_on)


def no_quarantine(patch: pytest.MonkeyPatch) -> None:
    """A released address may be given again at once."""
    real = Stock.rest

    def rest(self: Stock, key: lease.VmKey, given: Given, now: datetime) -> datetime:
        real(self, key, given, now)
        self.quarantine.set(given.address, now)
        return now

    patch.setattr(Stock, "rest", rest)


def release_on_the_schedulers_word_alone(patch: pytest.MonkeyPatch) -> None:
    """ipam does not wait for the node to let go."""
    patch.setattr(lease, "SAME", MappingProxyType({**lease.SAME, (State.HELD, Said.DELETING): Act.RELEASE}))


def no_memory_of_served_requests(patch: pytest.MonkeyPatch) -> None:
    """A late duplicate of a request is served again."""

    async def last_requests(*_: Any) -> Mapping[VmKey, Stamp]:
        return {}

    patch.setattr(MemoryRows, "last_requests", last_requests)


def facts_without_read_back(patch: pytest.MonkeyPatch) -> None:
    """The node-agent says that a VM is as desired when it has only tried."""
    patch.setattr(agent, "_unfinished", lambda *_: frozenset())


def an_older_snapshot(patch: pytest.MonkeyPatch) -> None:
    """The node-agent acts before it has kept what it acts upon."""
    patch.setattr(Mirror, "save", lambda _: None)
    patch.setattr(mirror, "_SAVE_SECONDS", 10.0)


def equal_preference(patch: pytest.MonkeyPatch) -> None:
    """The target of a migration is announced as its source is."""
    patch.setattr(forwarding, "PREFERRED_METRIC", ROUTE_METRIC)


def evacuated_at_equal_preference(patch: pytest.MonkeyPatch) -> None:
    """A refuge is announced as the lost node may still be."""
    patch.setattr(forwarding, "EVACUATED_METRIC", ROUTE_METRIC)


def nothing_is_left_behind(patch: pytest.MonkeyPatch) -> None:
    """A lost node is not told what is no longer its own."""
    patch.setattr(evacuation, "_absent", lambda *_: ())


def the_source_goes_first(patch: pytest.MonkeyPatch) -> None:
    """A migration breaks before it makes."""
    real = forwarding.wanted_routes

    def wanted_routes(port: Port, links: Iterable[Link]) -> frozenset[HostRoute]:
        return frozenset() if port.presence is Presence.FORWARDED else real(port, links)

    patch.setattr(plan, "wanted_routes", wanted_routes)


def room_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    """A VM is placed wherever it is light."""
    patch.setattr(ranking, "FILTERS", tuple(each for each in FILTERS if each is not has_room))


def groups_do_not_matter(patch: pytest.MonkeyPatch) -> None:
    """A hard rule of a group is no rule."""
    patch.setattr(ranking, "FILTERS", tuple(each for each in FILTERS if each is not keeps_company))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("broken", "seen_as"),
    [
        (no_generation_fence, "in ipam|is there though|nobody has the VM|times asked again"),
        (no_quarantine, "its pool's quarantine is"),
        (release_on_the_schedulers_word_alone, "but released in ipam"),
        (no_memory_of_served_requests, "is there though the last that was asked is its removal"),
        (facts_without_read_back, "in ipam|should be|is left on"),
        (an_older_snapshot, "and the node-agent of|in ipam|is there though"),
        (equal_preference, "both with preference"),
        (evacuated_at_equal_preference, "both with preference"),
        (nothing_is_left_behind, "in ipam|both with preference"),
        (the_source_goes_first, "best path to .* leads to None"),
        (room_is_not_looked_at, r"the VMs on n\d take \d+ \w+ of"),
        (groups_do_not_matter, "of group apart are on one node"),
    ],
)
def test_a_broken_service_is_caught(broken: Break, seen_as: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    violations = (run_seed(seed).violation for seed in range(WITHIN_SEEDS))
    first = next((violation for violation in violations if violation is not None), None)
    assert first is not None, f"no seed of {WITHIN_SEEDS} noticed"
    assert re.search(seen_as, first)
