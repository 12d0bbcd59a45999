"""Which nodes count as heard."""

from dataclasses import dataclass, field

import pytest

from vmfabric.contract.admin import NodeState
from vmfabric.contract.node import NodeHeartbeat
from vmfabric.scheduler.domain.changes import Heard
from vmfabric.scheduler.memory_store import MemoryStore, Tables
from vmfabric.scheduler.nodes import Nodes
from vmfabric.scheduler.transaction import transaction

from .builders import HandClock, a_cluster_spec, a_node_spec


@dataclass
class Listening:
    """The scheduler's ear, and what it says."""

    clock: HandClock = field(default_factory=HandClock)
    tables: Tables = field(default_factory=Tables)
    connected: bool = True

    def __post_init__(self) -> None:
        store = MemoryStore(self.tables)
        self._store = store
        self._nodes = Nodes(
            store, self.clock, committed=lambda: None, is_listening=lambda: self.connected, lost_after=10
        )

    async def knows_n1(self) -> None:
        async with transaction(self._store) as tx:
            tx.put_cluster(a_cluster_spec())
            tx.put_node(a_node_spec())

    async def seconds_pass(self, seconds: int, *, beating: bool = True, problem: str | None = None) -> None:
        for _ in range(seconds):
            self.clock.pass_(1)
            if beating and self.connected:
                self._nodes.heard(NodeHeartbeat(cluster="msk", node="n1", addresses=(), vms=0, problem=problem))
            await self._nodes.review()

    def said(self) -> list[str]:
        return [message.subject for message in self.tables.outbox if message.subject.startswith("node.")]


@pytest.fixture
async def listening() -> Listening:
    listening = Listening()
    await listening.knows_n1()
    await listening.seconds_pass(3)
    assert listening.said() == ["node.joined.msk.n1"]
    return listening


async def test_a_silent_node_is_lost_after_ten_seconds(listening: Listening) -> None:
    await listening.seconds_pass(9, beating=False)
    assert "node.lost.msk.n1" not in listening.said()
    await listening.seconds_pass(1, beating=False)
    assert listening.said()[-1] == "node.lost.msk.n1"
    await listening.seconds_pass(1)
    assert listening.said()[-1] == "node.returned.msk.n1"


async def test_what_is_wrong_with_a_node_is_known_with_its_next_heartbeat_and_so_is_its_end(
    listening: Listening,
) -> None:
    for problem in ("there is no bridge vmbr0", None):
        await listening.seconds_pass(1, problem=problem)
        (row,) = listening.tables.nodes.values()
        assert row.heard.problem == problem


async def test_a_node_that_was_deleted_and_is_applied_again_is_new_until_it_is_heard(listening: Listening) -> None:
    await listening.seconds_pass(11, beating=False)
    listening.tables.nodes.clear()
    await listening.seconds_pass(1, beating=False)
    await listening.knows_n1()
    await listening.seconds_pass(1, beating=False)
    (row,) = listening.tables.nodes.values()
    assert row.heard == Heard(NodeState.APPLIED, None, ())
    await listening.seconds_pass(1)
    assert listening.said()[-2:] == ["node.lost.msk.n1", "node.joined.msk.n1"]


async def test_no_node_is_lost_while_the_scheduler_cannot_hear(listening: Listening) -> None:
    listening.connected = False
    await listening.seconds_pass(60)
    listening.connected = True
    # The nodes' services need a moment to be back on the bus, too.
    await listening.seconds_pass(9, beating=False)
    await listening.seconds_pass(30)
    assert listening.said() == ["node.joined.msk.n1"]


async def test_a_node_that_stays_silent_when_the_bus_is_back_is_lost(listening: Listening) -> None:
    listening.connected = False
    await listening.seconds_pass(60)
    listening.connected = True
    await listening.seconds_pass(10, beating=False)
    assert listening.said() == ["node.joined.msk.n1", "node.lost.msk.n1"]


@pytest.mark.parametrize("seconds", [3600, -3600])
async def test_a_wall_clock_that_is_set_makes_no_node_lost_and_hides_no_loss(
    listening: Listening, seconds: float
) -> None:
    listening.clock.is_set(seconds)
    await listening.seconds_pass(9, beating=False)
    assert listening.said() == ["node.joined.msk.n1"]
    await listening.seconds_pass(1, beating=False)
    assert listening.said()[-1] == "node.lost.msk.n1"
