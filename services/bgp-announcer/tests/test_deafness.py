"""A bgpd that is behind is given time; one that is deaf is helped."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vmfabric.bgp_announcer.announcer import Announcer
from vmfabric.bgp_announcer.domain.plan import Change
from vmfabric.bgp_announcer.simulated import SimulatedFrr
from vmfabric.contract.addresses import Prefix, parse_host
from vmfabric.contract.dataplane import RESTORED_METRIC, ROUTE_METRIC
from vmfabric.contract.route import RouteAnnounced
from vmfabric.reconcile.loop import Dirty

from .conftest import Bus, View, a_vm, an_announcer

_LONG = 10
"""Seconds; more than it takes to notice that bgpd is deaf."""


@dataclass
class HandClock:
    seconds: float = 100.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class Frr(SimulatedFrr):
    renewals = 0

    async def configure(self, changes: Sequence[Change]) -> None:
        self.renewals += any(change.text.startswith("no redistribute kernel") for change in changes)
        await super().configure(changes)

    def hear(self) -> None:
        self._last_heard = None


@dataclass
class Node:
    """A VM that the node remembers, announced with less preference."""

    announcer: Announcer
    frr: Frr
    kernel: dict[Prefix, int]
    clock: HandClock = field(default_factory=HandClock)

    async def pass_seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.seconds += 1
            await self.announcer.step(Dirty(frozenset(), all=True))

    def confirm(self) -> None:
        self.kernel |= dict.fromkeys(self.kernel, ROUTE_METRIC)


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
async def node(tmp_path: Path, bus: Bus) -> Node:
    view, clock = View(), HandClock()
    view.want(a_vm())
    kernel = dict.fromkeys(a_vm().prefixes(), RESTORED_METRIC)
    frr = Frr(lambda: kernel)
    frr.up = {parse_host(f"10.0.0.{n}") for n in (11, 12)}
    node = Node(an_announcer(view, frr, bus, tmp_path, clock), frr, kernel, clock)
    await node.pass_seconds(_LONG)
    assert not bus.of(RouteAnnounced)
    return node


async def test_a_bgpd_that_is_behind_for_a_moment_keeps_its_routes(node: Node, bus: Bus) -> None:
    node.frr.deafen()
    node.confirm()
    await node.pass_seconds(2)
    node.frr.hear()
    await node.pass_seconds(1)
    assert len(bus.of(RouteAnnounced)) == 1
    assert node.frr.renewals == 0


async def test_a_bgpd_that_stays_behind_is_made_to_ask_anew(node: Node, bus: Bus) -> None:
    node.frr.deafen()
    node.confirm()
    await node.pass_seconds(_LONG)
    assert node.frr.renewals == 1
    assert len(bus.of(RouteAnnounced)) == 1


async def test_a_bgpd_that_stays_behind_is_noticed_although_another_vm_waits_for_its_own_reason(
    tmp_path: Path, bus: Bus
) -> None:
    view, clock = View(), HandClock()
    view.want(a_vm(8))  # its node-agent has not routed it yet
    view.want(a_vm(7))
    kernel = dict.fromkeys(a_vm(7).prefixes(), RESTORED_METRIC)
    frr = Frr(lambda: kernel)
    frr.up = {parse_host(f"10.0.0.{n}") for n in (11, 12)}
    node = Node(an_announcer(view, frr, bus, tmp_path, clock), frr, kernel, clock)
    await node.pass_seconds(_LONG)
    node.frr.deafen()
    node.confirm()
    await node.pass_seconds(_LONG)
    assert node.frr.renewals == 1
    assert [fact.vm for fact in bus.of(RouteAnnounced) if isinstance(fact, RouteAnnounced)] == ["vm7"]


async def test_a_bgpd_that_has_what_zebra_has_is_left_alone(node: Node) -> None:
    await node.pass_seconds(_LONG)
    assert node.frr.renewals == 0
