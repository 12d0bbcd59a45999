"""What is said of an answer that does not come."""

from dataclasses import replace
from datetime import timedelta

import pytest

from vmfabric.contract.admin import NodeState, VmPhase
from vmfabric.contract.vm import VmFailed
from vmfabric.scheduler.domain import lifecycle
from vmfabric.scheduler.domain.changes import Heard, NodeKey
from vmfabric.scheduler.domain.deadlines import Patience
from vmfabric.scheduler.transaction import transaction

from .builders import START
from .seat import Scheduler

N1 = NodeKey("msk", "n1")
JOINED = Heard(NodeState.JOINED, START, ())
QUESTION = "from the node-agent of n1: is it running, and does it reach the bus?"


async def why_it_fails(scheduler: Scheduler, heard: Heard = JOINED, *said: str) -> str:
    """Of a VM that is not wired in time; `said` are the facts of it that came before."""
    await scheduler.handlers.requested(scheduler.request(node="n1"))
    await scheduler.hears(*said)
    async with transaction(scheduler.store) as tx:
        tx.put_heard(N1, heard)
    scheduler.clock.pass_(31)
    await scheduler.sweep().once()
    record = await scheduler.record()
    assert record is not None
    assert record.failure is not None
    return record.failure.message


async def test_a_vm_that_fails_on_a_node_with_a_problem_fails_with_that_problem(scheduler: Scheduler) -> None:
    has_problem = replace(JOINED, problem="the uplink eth0 has no carrier")
    message = await why_it_fails(scheduler, has_problem, "ip.allocated")
    assert message == (
        "waited 31 s for iface.ready from the node-agent of n1. n1 says: the uplink eth0 has no carrier"
    )


async def test_a_vm_that_its_node_cannot_wire_fails_with_what_the_node_says(scheduler: Scheduler) -> None:
    scheduler.problems = {(N1, "vm1"): "vm1_net0 is a stranger's", (N1, "vm2"): "vm2_net0 is a stranger's"}
    message = await why_it_fails(scheduler, JOINED, "ip.allocated")
    assert message.endswith("from the node-agent of n1. n1 says: vm1_net0 is a stranger's")


async def test_a_vm_that_fails_on_a_lost_node_says_since_when_that_is_silent(scheduler: Scheduler) -> None:
    message = await why_it_fails(scheduler, replace(JOINED, state=NodeState.LOST), "ip.allocated")
    assert message.endswith("from the node-agent of n1. n1 has not been heard since 2026-01-01 00:00:00 UTC")


async def test_whether_the_node_agent_runs_is_asked_when_no_reason_is_known(scheduler: Scheduler) -> None:
    assert (await why_it_fails(scheduler, JOINED, "ip.allocated")).endswith(QUESTION)


async def test_a_problem_of_the_node_is_no_reason_for_the_silence_of_ipam(scheduler: Scheduler) -> None:
    message = await why_it_fails(scheduler, replace(JOINED, problem="the uplink eth0 has no carrier"))
    assert message == "waited 31 s for ip.allocated from ipam: is it running, and does it reach the bus?"


@pytest.mark.parametrize(
    ("reason", "end"), [(None, "its addresses stay its own"), ("n1 says: no", "stay its own. n1 says: no")]
)
async def test_a_vm_that_its_node_does_not_let_go_says_why(
    scheduler: Scheduler, reason: str | None, end: str
) -> None:
    await scheduler.is_made(node="n1")
    await scheduler.handlers.delete_requested(scheduler.deletion())
    await scheduler.hears("route.withdrawn")
    record = await scheduler.record()
    assert record is not None
    assert record.phase is VmPhase.UNWIRING
    turn = lifecycle.overdue(record, START + timedelta(seconds=31), Patience(), reason=reason)
    assert turn is not None
    (said,) = turn.events
    assert isinstance(said, VmFailed)
    assert said.message.endswith(end)
