"""`vm.explain` and `node.audit`: asks everybody along a VM's way, and says where it ends."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from vmfabric.contract.admin import ExplainAddress, Explanation, GetVm, NodeState, VmPhase
from vmfabric.contract.desired import DesiredVm
from vmfabric.contract.errors import Code, Refused, TryAgain
from vmfabric.contract.explanation import (
    IFACE_EXPLAIN,
    ROUTE_EXPLAIN,
    AuditNode,
    ExplainOnNode,
    Finding,
    Findings,
    NodeAudit,
    VmExplanation,
)
from vmfabric.contract.names import VmName
from vmfabric.contract.placement import PlacementDecision
from vmfabric.contract.subjects import Template
from vmfabric.contract.vm import VmDeleted, VmFailed
from vmfabric.runtime.bucket import KeptMessage
from vmfabric.runtime.micro import Ask
from vmfabric.scheduler.domain import lifecycle
from vmfabric.scheduler.domain.changes import NodeKey
from vmfabric.scheduler.domain.explanation import cause, unanswered, why_there
from vmfabric.scheduler.domain.lateness import silent_since
from vmfabric.scheduler.domain.record import VmKey, VmRecord
from vmfabric.scheduler.named import the_cluster, the_node_as_it_is
from vmfabric.scheduler.ports import NodeRow, Store
from vmfabric.scheduler.strays import Strays
from vmfabric.scheduler.transaction import transaction
from vmfabric.scheduler.witnesses import reflected_findings

LastFact = Callable[[str], Awaitable[KeptMessage | None]]
"""The last fact on a subject that the bus keeps."""
DesiredValue = Callable[[str], Awaitable[bytes | None]]
"""What the bucket has for a key."""


class _Service(NamedTuple):
    """A service of a node."""

    name: str
    explain: Template


_NODE_AGENT = _Service("node-agent", IFACE_EXPLAIN)
_BGP_ANNOUNCER = _Service("bgp-announcer", ROUTE_EXPLAIN)
"""Where the cluster announces."""


class Explaining:
    """The answer needs the store; what cannot be asked is a finding too."""

    def __init__(self, store: Store, strays: Strays, *, ask: Ask, last_fact: LastFact, desired: DesiredValue) -> None:
        self._store = store
        self._strays = strays
        self._ask = ask
        self._last_fact = last_fact
        self._desired = desired

    async def explain(self, asked: GetVm) -> VmExplanation:
        """Refused when nobody knows anything of the VM."""
        key = VmKey(asked.cluster, asked.vm)
        async with transaction(self._store) as tx:
            record = await tx.rows.vm(key)
            decision = await tx.rows.decision(key)
            left = [row.desired for row in await tx.rows.left_behind(key)]
            nodes = await tx.rows.nodes(asked.cluster)
            await the_cluster(tx, asked.cluster)
        findings = [await self._end_of(key)] if record is None else await self._of_record(record, decision, nodes)
        findings += [_left_behind(value) for value in left]
        root = cause(findings)
        end = "the reflectors" if record is not None and record.is_announced else "its port on the node"
        return VmExplanation(
            cluster=asked.cluster,
            vm=asked.vm,
            verdict=root.sentence if root else f"everything is as it should be, to {end}",
            findings=tuple(findings),
        )

    async def audit(self, asked: AuditNode) -> NodeAudit:
        """Refused when there is no such node, or the repair would remove suspiciously much from it."""
        key = NodeKey(asked.cluster, asked.node)
        async with transaction(self._store) as tx:
            _, cluster = await the_node_as_it_is(tx, key)
            nodes = await tx.rows.nodes(asked.cluster)
            records = await tx.rows.vms_on(key)
        values = [value for record in records for value in record.all_desired() if value.node == asked.node]
        findings = [finding for record in records for finding in (_record(record), *await self._leases(record))]
        findings += [await self._bucket(value) for value in values]
        strays = await self._strays.on(key)
        told = [*values, *strays]
        findings += await self._on_node(key, None, told, nodes, is_announced=cluster.type.is_announced)
        findings += [_stray(value) for value in strays]
        if asked.repair:
            await self._strays.remove(strays, of=len(values))
        return NodeAudit(
            cluster=asked.cluster,
            node=asked.node,
            vms=len(records),
            findings=tuple(finding for finding in findings if not finding.is_right),
        )

    async def _of_record(
        self, record: VmRecord, decision: PlacementDecision | None, nodes: Sequence[NodeRow]
    ) -> list[Finding]:
        findings = [_record(record)]
        if decision is not None:
            findings.append(_right(record.vm, "scheduler", why_there(decision)))
        findings += await self._leases(record)
        for value in record.all_desired():
            findings.append(await self._bucket(value))
            where = NodeKey(value.cluster, value.node)
            findings += await self._on_node(where, value.vm, [value], nodes, is_announced=value.is_announced)
        return findings

    async def _end_of(self, key: VmKey) -> Finding:
        """Of a VM that is not there: what was said of it last."""
        who = key._asdict()
        failed = await self._last_fact(VmFailed.subject_template.render(who))
        deleted = await self._last_fact(VmDeleted.subject_template.render(who))
        if failed is not None and (deleted is None or deleted.sequence < failed.sequence):
            fact = VmFailed.model_validate_json(failed.data)
            sentence = f"there is no such VM; it failed at step {fact.step}, {fact.code}: {fact.message}"
            return _wrong(key.vm, "scheduler", sentence)
        if deleted is not None:
            return _wrong(key.vm, "scheduler", "there is no such VM; it was deleted, as somebody asked")
        raise Refused(Code.UNKNOWN_VM, f"nobody has heard of VM {key.vm} in cluster {key.cluster}; see vm.list")

    async def _leases(self, record: VmRecord) -> list[Finding]:
        return [await self._lease(record, ExplainAddress(address=it.address)) for it in record.addresses]

    async def _lease(self, record: VmRecord, asked: ExplainAddress) -> Finding:
        try:
            found = await self._ask("ip.explain", asked, Explanation)
        except (TryAgain, Refused) as error:
            return _wrong(record.vm, "ipam", f"ipam does not say whose {asked.address} is: {error.sentence}")
        is_its_own = found.record is not None and (found.record.cluster, found.record.vm) == record.key
        return Finding(vm=record.vm, about="ipam", is_right=is_its_own, sentence=found.verdict)

    async def _bucket(self, value: DesiredVm) -> Finding:
        found = await self._desired(value.key())
        if found is None:
            return _wrong(
                value.vm, "bucket", f"key {value.key()} is missing; the scheduler puts it again within a minute"
            )
        if found != value.to_bytes():
            return _wrong(
                value.vm,
                "bucket",
                f"key {value.key()} says something else than the scheduler; within a minute it is put again",
            )
        return _right(value.vm, "bucket", f"key {value.key()} says {value.presence}, generation {value.generation}")

    async def _on_node(
        self,
        key: NodeKey,
        vm: VmName | None,
        values: Sequence[DesiredVm],
        nodes: Sequence[NodeRow],
        *,
        is_announced: bool,
    ) -> list[Finding]:
        """What the node's own services say of a VM, or of all of them what is not right, and what reflectors hold."""
        lost = next((row for row in nodes if row.key == key and row.heard.state is NodeState.LOST), None)
        services = (_NODE_AGENT, _BGP_ANNOUNCER) if is_announced else (_NODE_AGENT,)
        of_node = [_is_lost(vm, lost)] if lost is not None else await self._asked_on_node(key, vm, services)
        of_reflectors = (
            await reflected_findings(self._ask, key, nodes, values, are_all=vm is None) if is_announced else []
        )
        return [*of_node, *(it.model_copy(update={"vm": vm or it.vm}) for it in of_reflectors)]

    async def _asked_on_node(self, key: NodeKey, vm: VmName | None, services: Sequence[_Service]) -> list[Finding]:
        asked, where = ExplainOnNode(vm=vm), key._asdict()
        told = await asyncio.gather(
            *(self._asked_service(each.name, each.explain.render(where), asked) for each in services)
        )
        return [finding for findings in told for finding in findings]

    async def _asked_service(self, service: str, subject: str, asked: ExplainOnNode) -> tuple[Finding, ...]:
        try:
            return (await self._ask(subject, asked, Findings)).findings
        except TryAgain:
            sentence = unanswered(service, subject.rpartition(".")[2])
        except Refused as error:
            sentence = error.sentence
        return (_wrong(asked.vm, service, sentence),)


def _record(record: VmRecord) -> Finding:
    waits_for = lifecycle.waits_for(record)
    since = f"since {record.waiting.since:%Y-%m-%d %H:%M:%S} UTC"
    if record.phase is VmPhase.READY and waits_for is None:
        return _right(
            record.vm, "scheduler", f"it is ready on {record.node}, generation {record.generation}, {since}"
        )
    failure = f"; it is on its way back because of {record.failure.message}" if record.failure else ""
    return _wrong(record.vm, "scheduler", f"it is {record.phase} {since}, and waits for {waits_for}{failure}")


def _stray(value: DesiredVm) -> Finding:
    return _wrong(
        value.vm,
        "bucket",
        f"key {value.key()} wants it {value.presence}, generation {value.generation}, and the scheduler knows no "
        "such VM: its database is older than what it has done, or somebody else wrote the key. `repair` removes it",
    )


def _left_behind(value: DesiredVm) -> Finding:
    sentence = (
        f"{value.node}, which was lost, has not said yet that it let go of it; that is said when the node returns"
    )
    return _right(value.vm, "scheduler", sentence)


def _is_lost(vm: VmName | None, row: NodeRow) -> Finding:
    sentence = (
        f"{row.key.node} is lost: it {silent_since(row.heard)}, and cannot say what it has. If it surely does not "
        "run, node.evacuate places its VMs elsewhere"
    )
    return _wrong(vm, "node", sentence)


def _right(vm: VmName, about: str, sentence: str) -> Finding:
    return Finding(vm=vm, about=about, is_right=True, sentence=sentence)


def _wrong(vm: VmName | None, about: str, sentence: str) -> Finding:
    return Finding(vm=vm, about=about, is_right=False, sentence=sentence)
