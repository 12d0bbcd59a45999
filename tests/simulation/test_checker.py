"""The simulation sees what it is there to see: services that are broken on purpose are caught within a few seeds."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

import pytest

from simulation.world import run_seed
from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.names import NodeName, ResourceName
from vmfabric.ipam.domain import lease
from vmfabric.ipam.domain.lease import Act, Lease, Said, State
from vmfabric.ipam.domain.stock import Stock
from vmfabric.node_agent import agent
from vmfabric.scheduler.domain import lifecycle
from vmfabric.scheduler.domain.record import Stamp, VmKey, VmRecord
from vmfabric.scheduler.domain.turn import Turn
from vmfabric.scheduler.memory_store import MemoryRows

WITHIN_SEEDS = 200

Break = Callable[[pytest.MonkeyPatch], None]


def no_generation_fence(patch: pytest.MonkeyPatch) -> None:
    """ipam and the scheduler take a late event for one of the generation that they know."""
    heard, acted = lifecycle.advance, lease.act_on

    def advance(record: VmRecord, fact: lifecycle.VmFact, *rest: Any) -> Turn | None:
        return heard(record, fact.model_copy(update={"generation": record.generation}), *rest)

    def act_on(known: Lease, said: Said, generation: int, node: NodeName) -> Act:
        return acted(known, said, max(generation, known.generation), node)

    patch.setattr(lifecycle, "advance", advance)
    patch.setattr("vmfabric.ipam.domain.leasing.act_on", act_on)


def no_quarantine(patch: pytest.MonkeyPatch) -> None:
    """A released address may be given again at once."""
    real = Stock.rest

    def rest(self: Stock, address: HostAddress, pool: ResourceName, now: datetime) -> datetime:
        real(self, address, pool, now)
        self.quarantine.rest(address, now)
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


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("broken", "seen_as"),
    [
        (no_generation_fence, "in ipam|is there though|nobody has the VM"),
        (no_quarantine, "its pool's quarantine is"),
        (release_on_the_schedulers_word_alone, "but released in ipam"),
        (no_memory_of_served_requests, "is there though the last that was asked is its removal"),
        (facts_without_read_back, "in ipam|should be"),
    ],
)
def test_a_broken_service_is_caught(broken: Break, seen_as: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    violations = (run_seed(seed).violation for seed in range(WITHIN_SEEDS))
    first = next((violation for violation in violations if violation is not None), None)
    assert first is not None, f"no seed of {WITHIN_SEEDS} noticed"
    assert re.search(seen_as, first)
