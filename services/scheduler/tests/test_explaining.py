"""Who is asked why a VM is not reachable."""

from typing import Any, TypeVar

import pytest
from pydantic import BaseModel

from vmfabric.contract.admin import AddressRecord, Explanation, GetVm, NodeState
from vmfabric.contract.cluster import NetworkType
from vmfabric.contract.explanation import AuditNode, Finding, Findings, Reflected
from vmfabric.contract.model import Request
from vmfabric.scheduler.domain.changes import Heard, NodeKey
from vmfabric.scheduler.domain.explanation import CAUSES, cause
from vmfabric.scheduler.explaining import Explaining
from vmfabric.scheduler.strays import Strays
from vmfabric.scheduler.transaction import transaction

from .builders import ADDRESS, START
from .seat import Scheduler

A = TypeVar("A", bound=BaseModel)
RECORD = AddressRecord(address=ADDRESS, pool="public", cluster="msk", vm="vm1", state="allocated", since=START)
ANSWERS: dict[type[BaseModel], BaseModel] = {
    Explanation: Explanation(address=ADDRESS, verdict="it is vm1's", record=RECORD, history=()),
    Findings: Findings(findings=()),
    Reflected: Reflected(routes={}),
}


async def who_is_asked(scheduler: Scheduler) -> tuple[list[str], list[str], str]:
    """The subjects that an explanation and an audit ask of nodes, and the verdict of the explanation."""
    subjects: list[str] = []

    async def ask(subject: str, asked: Request, answer: type[A]) -> A:
        subjects.append(subject)
        given = ANSWERS[answer]
        assert isinstance(given, answer)
        return given

    async def wanted(_key: str) -> bytes:
        record = await scheduler.record()
        assert record is not None
        assert record.desired is not None
        return record.desired.to_bytes()

    async def nothing(*_: object) -> Any:
        return {}

    strays = Strays(scheduler.store, scheduler.desk, nothing)
    explaining = Explaining(scheduler.store, strays, ask=ask, last_fact=nothing, desired=wanted)
    found = await explaining.explain(GetVm(cluster="msk", vm="vm1"))
    explained, subjects[:] = list(subjects), []
    await explaining.audit(AuditNode(cluster="msk", node="n1"))
    return explained, subjects, found.verdict


def finding(about: str, *, is_right: bool = False) -> Finding:
    return Finding(vm="vm1", about=about, is_right=is_right, sentence=f"{about} says so")


@pytest.mark.parametrize(
    ("root", "consequences"),
    [
        ("node", ["scheduler", "node-agent", "kernel", "reflectors"]),
        ("node-agent", ["scheduler", "kernel", "frr"]),
        ("bucket", ["scheduler", "node-agent"]),
        ("ipam", ["kernel", "bucket"]),
        ("kernel", ["scheduler", "frr", "reflectors", "dhcp"]),
        ("bgp-announcer", ["frr", "reflectors"]),
        ("frr", ["scheduler", "reflectors"]),
        ("scheduler", ["what a later version looks at"]),
    ],
)
def test_the_verdict_is_the_cause_whatever_the_order_of_the_findings(root: str, consequences: list[str]) -> None:
    for order in ([root, *consequences], [*consequences, root]):
        found = [finding("node", is_right=True), *map(finding, order), finding("bucket", is_right=True)]
        assert cause(found) == finding(root)


def test_of_two_causes_that_are_as_near_the_first_is_the_verdict() -> None:
    first, second = finding("frr"), finding("frr").model_copy(update={"sentence": "another"})
    assert cause([finding("scheduler"), first, second]) == first


def test_there_is_no_cause_when_all_is_right() -> None:
    assert cause([finding(about, is_right=True) for about in CAUSES]) is None


async def test_a_vm_that_waits_for_its_lost_node_is_explained_by_that(scheduler: Scheduler) -> None:
    await scheduler.handlers.requested(scheduler.request(node="n1"))
    await scheduler.hears("ip.allocated")
    async with transaction(scheduler.store) as tx:
        tx.put_heard(NodeKey("msk", "n1"), Heard(NodeState.LOST, START, ()))
    _, _, verdict = await who_is_asked(scheduler)
    assert verdict.startswith("n1 is lost: it has not been heard since 2026-01-01 00:00:00 UTC")


@pytest.mark.parametrize("kind", list(NetworkType))
async def test_announcers_and_reflectors_are_asked_where_the_cluster_announces(
    scheduler: Scheduler, kind: NetworkType
) -> None:
    if kind is not NetworkType.IP_FABRIC:
        await scheduler.is_of_type(kind)
    await scheduler.is_made()
    routes = ["route.explain.msk.n1", "route.reflected.msk.n2"] if kind.is_announced else []
    everybody = ["ip.explain", "iface.explain.msk.n1", *routes]
    explained, audited, verdict = await who_is_asked(scheduler)
    assert (explained, audited) == (everybody, everybody)
    assert verdict.endswith("to the reflectors" if kind.is_announced else "to its port on the node")
