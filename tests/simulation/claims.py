"""What placement promises of nodes: no more VMs than there is room for, none beside one that is to be apart."""

from collections.abc import Iterator
from itertools import combinations

from vmfabric.contract.cluster import NodeSpec, Overcommit
from vmfabric.contract.vm import GroupKind, VmRequested
from vmfabric.scheduler.domain.candidate import Usage
from vmfabric.scheduler.domain.record import VmRecord
from vmfabric.scheduler.memory_store import Tables


def broken(tables: Tables) -> Iterator[str]:
    """In words."""
    for key, row in tables.nodes.items():
        here = [record for record in tables.vms.values() if row.spec.name in record.nodes()]
        taken = sum((Usage.of(record.request) for record in here), Usage())
        if row.used != taken:
            yield f"{row.spec.name} counts {row.used}, and its VMs take {taken}"
        yield from _too_much(row.spec, taken, tables.clusters[key.cluster].placement.overcommit)
        yield from _too_close(here)


def _too_much(spec: NodeSpec, taken: Usage, times: Overcommit) -> Iterator[str]:
    has, reserve = spec.capacity, spec.reserve
    for what, used, room in (
        ("cpu", taken.cpu, (has.cpu - reserve.cpu) * times.cpu),
        ("memory_mb", taken.memory_mb, (has.memory_mb - reserve.memory_mb) * times.memory),
        ("disk_gb", taken.disk_gb, (has.disk_gb - reserve.disk_gb) * times.disk),
        ("vms", taken.vms, spec.max_vms or taken.vms),
    ):
        if used > room:
            yield f"the VMs on {spec.name} take {used} {what} of {room:g}"


def _too_close(here: list[VmRecord]) -> Iterator[str]:
    for one, other in combinations(here, 2):
        for group in (_apart(one.request) & _named(other.request)) | (_apart(other.request) & _named(one.request)):
            yield f"{one.vm} and {other.vm} of group {group} are on one node"


def _named(request: VmRequested) -> set[str]:
    return {rule.group for rule in request.groups}


def _apart(request: VmRequested) -> set[str]:
    return {rule.group for rule in request.groups if rule.hard and rule.kind is GroupKind.ANTI_AFFINITY}
