"""What a request for a VM gets: a VM, the answer of the one that is there, or a refusal."""

import json
from datetime import datetime

from vmfabric.contract.admin import VmPhase
from vmfabric.contract.cluster import ClusterSpec, Virtualization
from vmfabric.contract.errors import Code
from vmfabric.contract.guest_config import GuestConfigForm
from vmfabric.contract.ip import IpRefused
from vmfabric.contract.names import ClusterName, NodeName, VmName
from vmfabric.contract.vm import VmFailed, VmMigrated, VmMigrateRequested, VmMigrating, VmRequested
from vmfabric.scheduler.domain import lifecycle, migration
from vmfabric.scheduler.domain.deadlines import Patience
from vmfabric.scheduler.domain.ranking import Decision
from vmfabric.scheduler.domain.record import Move, Stamp, Steps, VmRecord, guest_mac
from vmfabric.scheduler.domain.turn import Turn, enter

_REASONS_IN_SENTENCE = 5


def is_repetition(asked: Stamp, *served: Stamp | None) -> bool:
    """Whether this request was served already, or came before one that was."""
    return any(last is not None and asked <= last for last in served)


def create(
    request: VmRequested,
    asked: Stamp,
    *,
    node: NodeName,
    generation: int,
    trace_id: str,
    now: datetime,
    patience: Patience,
) -> Turn:
    """A VM begins on its node."""
    record = VmRecord(
        request=request,
        last_request=asked,
        began_at=asked.at,
        trace_id=trace_id,
        node=node,
        generation=generation,
        mac=guest_mac(request.cluster, request.vm),
        phase=VmPhase.ALLOCATING,
        waiting=patience.begin(now, VmPhase.ALLOCATING),
        steps=Steps(placed=now),
    )
    return lifecycle.place(record)


def may_be_elsewhere(record: VmRecord, refused: IpRefused) -> bool:
    """Whether a VM that got no addresses is worth another node: once, and only while nobody named one."""
    return (
        (record.phase, record.generation) == (VmPhase.ALLOCATING, refused.generation)
        and refused.code is Code.POOL_EXHAUSTED
        and record.request.node is None
        and not record.placed_again
    )


def place_again(record: VmRecord, node: NodeName, generation: int, now: datetime, patience: Patience) -> Turn:
    """It begins once more, on another node."""
    again = record.model_copy(
        update={"node": node, "generation": generation, "steps": Steps(placed=now), "placed_again": True}
    )
    return lifecycle.place(enter(again, VmPhase.ALLOCATING, now, patience))


def ask_again(record: VmRecord, request: VmRequested, asked: Stamp) -> Turn:
    """A request for a VM that is there: the same one gets the same answer, another one is a conflict."""
    served = record.model_copy(update={"last_request": asked})
    if record.going_back:
        sentence = f"{record.vm} is being removed; ask again after vm.deleted or vm.failed"
        return Turn(served, events=(refusal(record.cluster, record.vm, Code.CONFLICT, sentence),))
    if request != record.request:
        sentence = f"{record.vm} exists with another {_differences(request, record.request)}; it is untouched"
        return Turn(served, events=(refusal(record.cluster, record.vm, Code.CONFLICT, sentence),))
    is_up = record.phase is VmPhase.READY or record.move is not None
    return Turn(served, events=(lifecycle.ready(record),) if is_up else ())


def cannot_migrate(
    record: VmRecord, request: VmMigrateRequested, cluster: ClusterSpec
) -> VmMigrated | VmMigrating | VmFailed | None:
    """The answer to a request that starts no migration; None when it does."""
    if record.going_back:
        return _stays(record, Code.CONFLICT, f"{record.vm} is being removed")
    if record.move is not None:
        return _is_on_its_way(record, record.move, request)
    if record.phase is not VmPhase.READY:
        return _stays(
            record, Code.CONFLICT, f"{record.vm} is not ready yet: it waits for {lifecycle.waits_for(record)}"
        )
    if request.node == record.node:
        return VmMigrated(
            cluster=record.cluster,
            vm=record.vm,
            node=record.node,
            generation=record.generation,
            addresses=record.addresses,
        )
    bound = migration.why_bound(cluster, record.node)
    return _stays(record, Code.CANNOT_MIGRATE, f"{record.vm} stays on {record.node}: {bound}") if bound else None


def _is_on_its_way(record: VmRecord, move: Move, request: VmMigrateRequested) -> VmMigrating | VmFailed:
    """The same request again gets the same answer again; another one changes nothing."""
    if request.node in {None, move.target}:
        return migration.migrating(record, move)
    way = f"from {move.source} to {move.target}, and waits for {lifecycle.waits_for(record)}"
    sentence = f"{record.vm} is on its way {way}; ask again after vm.migrated or vm.failed"
    return refusal(record.cluster, record.vm, Code.CONFLICT, sentence)


def calls_back(record: VmRecord, request: VmMigrateRequested) -> Move | None:
    """The migration that this request, for the node that the VM is on, gives up; None when it gives up none."""
    is_early = record.move is not None and record.phase in migration.BEFORE_THE_SWITCH
    return record.move if is_early and request.node == record.node else None


def no_target(record: VmRecord, decision: Decision) -> VmFailed:
    """Placement found none; the VM stays where it is."""
    sentence = f"{record.vm} stays on {record.node}: {_found(record.request, decision)}"
    failed = _stays(record, Code.NO_NODE_FITS, sentence)
    return failed.model_copy(update={"refusals": decision.refusals})


def no_such_node(request: VmRequested | VmMigrateRequested, step: str) -> VmFailed:
    """The one that was asked for; nothing was changed."""
    sentence = (
        f"{request.vm} should be on {request.node}, and cluster {request.cluster} has no such node; node.list shows "
        "those that are"
    )
    return VmFailed(cluster=request.cluster, vm=request.vm, step=step, code=Code.UNKNOWN_NODE, message=sentence)


def no_vm(cluster: ClusterName, vm: VmName) -> VmFailed:
    """There is nothing to move."""
    sentence = f"there is no VM {vm} in cluster {cluster}; vm.list shows those that are"
    return VmFailed(cluster=cluster, vm=vm, step=migration.STEP, code=Code.UNKNOWN_VM, message=sentence)


def _stays(record: VmRecord, code: Code, sentence: str) -> VmFailed:
    return VmFailed(
        cluster=record.cluster,
        vm=record.vm,
        generation=record.generation,
        step=migration.STEP,
        code=code,
        message=sentence,
    )


def refusal(cluster: ClusterName, vm: VmName, code: Code, sentence: str) -> VmFailed:
    """The request itself cannot be carried out; nothing was changed."""
    return VmFailed(cluster=cluster, vm=vm, step="request", code=code, message=sentence)


def no_cluster(cluster: ClusterName, vm: VmName) -> VmFailed:
    """Nobody applied it."""
    sentence = f"there is no cluster {cluster}; cluster.list shows those that are, cluster.apply makes one"
    return refusal(cluster, vm, Code.UNKNOWN_CLUSTER, sentence)


def unfitting(request: VmRequested, cluster: ClusterSpec) -> VmFailed | None:
    """Why the guests of this cluster cannot be told of their network like that; None when they can."""
    if request.guest_config is not GuestConfigForm.LXD or cluster.virtualization is Virtualization.LXD:
        return None
    sentence = (
        f"{request.vm} wants guest_config {request.guest_config}, and the guests of cluster {cluster.name} are "
        f"{cluster.virtualization}'s, not {Virtualization.LXD}'s; ask for another form"
    )
    return refusal(request.cluster, request.vm, Code.INVALID_REQUEST, sentence)


def no_node(request: VmRequested, decision: Decision) -> VmFailed:
    """Placement found none; each with its reason, the first of them in the sentence too."""
    return VmFailed(
        cluster=request.cluster,
        vm=request.vm,
        step="place",
        code=Code.NO_NODE_FITS,
        message=f"{request.vm} has no node: {_found(request, decision)}",
        refusals=decision.refusals,
    )


def _found(request: VmRequested, decision: Decision) -> str:
    refusals = sorted(decision.refusals.items())[:_REASONS_IN_SENTENCE]
    reasons = "; ".join(f"{node}: {reason}" for node, reason in refusals)
    found = f"{decision.looked_at} nodes, none fits ({reasons})" if reasons else "there is no node for it; apply one"
    return (
        f"it wants {request.cpu} cpu, {request.memory_mb} MiB of memory and {request.disk_gb} GiB of disk; "
        f"in cluster {request.cluster}: {found}"
    )


def _differences(wanted: VmRequested, found: VmRequested) -> str:
    fields = [name for name in type(wanted).model_fields if getattr(wanted, name) != getattr(found, name)]
    asked, has = wanted.model_dump(mode="json"), found.model_dump(mode="json")
    return ", ".join(f"{name} (asked {_words(asked[name])}, has {_words(has[name])})" for name in fields)


def _words(value: object) -> str:
    return "the default" if value is None else json.dumps(value)
