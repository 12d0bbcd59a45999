"""What an operator asks of something that is not there."""

from typing import Any

import pytest

from vmfabric.contract.admin import DrainNode, EvacuateNode, GetVm, ListOfCluster, UndrainNode
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.explanation import AuditNode
from vmfabric.contract.model import Request
from vmfabric.contract.retry import RetryNode
from vmfabric.scheduler.explaining import Explaining
from vmfabric.scheduler.memory_store import MemoryStore, Tables
from vmfabric.scheduler.retrying import Retrying
from vmfabric.scheduler.strays import Strays

from .seat import Scheduler

ASKED: dict[str, tuple[type[Request], dict[str, str]]] = {
    "vm.list": (ListOfCluster, {}),
    "node.list": (ListOfCluster, {}),
    "vm.get": (GetVm, {"vm": "vm9"}),
    "vm.explain": (GetVm, {"vm": "vm9"}),
    "node.drain": (DrainNode, {"node": "n9"}),
    "node.undrain": (UndrainNode, {"node": "n9"}),
    "node.evacuate": (EvacuateNode, {"node": "n9", "fence": "ipmi"}),
    "node.audit": (AuditNode, {"node": "n9"}),
    "node.retry": (RetryNode, {"node": "n9"}),
}


async def _nothing(*_: object) -> Any:
    return None


NOBODY: Any = _nothing


async def ask(scheduler: Scheduler, subject: str, cluster: str) -> None:
    strays = Strays(scheduler.store, scheduler.desk, NOBODY)
    explaining = Explaining(scheduler.store, strays, ask=NOBODY, last_fact=NOBODY, desired=NOBODY)
    handlers: dict[str, Any] = {
        **{it.subject: it.handler for it in scheduler.administration().endpoints()},
        "vm.explain": explaining.explain,
        "node.audit": explaining.audit,
        "node.retry": Retrying(scheduler.store, ask=NOBODY).retry,
    }
    kind, rest = ASKED[subject]
    await handlers[subject](kind.model_validate({"cluster": cluster, **rest}))


async def test_what_is_asked_of_an_unknown_cluster_is_refused_with_the_names_of_those_that_there_are(
    scheduler: Scheduler,
) -> None:
    for subject in ASKED:
        with pytest.raises(Refused) as refused:
            await ask(scheduler, subject, "mks")
        assert refused.value.code is Code.UNKNOWN_CLUSTER, subject
        assert refused.value.sentence == "there is no cluster mks; there are: msk"


async def test_what_is_asked_of_an_unknown_node_or_vm_of_a_cluster_is_refused_as_that(scheduler: Scheduler) -> None:
    for subject in (it for it in ASKED if "list" not in it):
        with pytest.raises(Refused) as refused:
            await ask(scheduler, subject, "msk")
        assert refused.value.code is (Code.UNKNOWN_VM if subject.startswith("vm.") else Code.UNKNOWN_NODE), subject


async def test_who_has_no_cluster_yet_is_told_how_to_make_one() -> None:
    empty = Scheduler(MemoryStore(Tables()), NOBODY)
    with pytest.raises(Refused, match="there is no cluster msk; there is none yet, cluster.apply makes one"):
        await ask(empty, "vm.list", "msk")
