"""Who is asked why a VM is not reachable."""

from typing import Any, TypeVar

import pytest
from pydantic import BaseModel

from vmfabric.contract.admin import AddressRecord, Explanation, GetVm
from vmfabric.contract.cluster import NetworkType
from vmfabric.contract.explanation import AuditNode, Findings, Reflected
from vmfabric.contract.model import Request
from vmfabric.scheduler.explaining import Explaining
from vmfabric.scheduler.strays import Strays

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
