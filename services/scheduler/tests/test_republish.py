"""What is put again, and what is left alone."""

from typing import Any

from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.scheduler.domain import lifecycle
from vmfabric.scheduler.republish import Found

from .builders import START, a_cluster_spec, the_facts
from .test_lifecycle import PATIENCE, a_vm


def a_desired(vm: str = "vm1", generation: int = 7, **changes: Any) -> DesiredVm:
    record = a_vm().record
    assert record is not None
    turn = lifecycle.advance(record, the_facts(7)["ip.allocated"], a_cluster_spec(), START, PATIENCE)
    assert turn is not None
    return turn.puts[0].model_copy(update={"vm": vm, "generation": generation, **changes})


def found(*, known: list[DesiredVm], bucket: list[DesiredVm], on_the_way: frozenset[str] = frozenset()) -> Found:
    return Found(
        vms={value.key(): value for value in known},
        on_the_way=on_the_way,
        bucket={value.key(): value.to_bytes() for value in bucket},
    )


def test_what_is_on_its_way_to_the_bucket_is_not_missed() -> None:
    value = a_desired()
    assert found(known=[value], bucket=[]).lacks(value)
    assert not found(known=[value], bucket=[], on_the_way=frozenset({"$KV.desired.vm.msk.n1.vm1"})).lacks(value)
    assert not found(known=[value], bucket=[value]).lacks(value)
    assert found(known=[value], bucket=[a_desired(presence=Presence.WIRED)]).lacks(value)


def test_a_vm_of_the_bucket_alone_is_a_stray_unless_its_removal_is_on_the_way() -> None:
    stray = a_desired()
    assert found(known=[], bucket=[stray]).strays() == ["vm.msk.n1.vm1"]
    assert not found(known=[], bucket=[stray], on_the_way=frozenset({"$KV.desired.vm.msk.n1.vm1"})).strays()
    assert not found(known=[stray], bucket=[stray]).strays()
