"""Brings the kernel in line with the desired state, and says so."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence

import structlog
from prometheus_client import Counter, Gauge

from vmfabric.contract.addresses import parse_host
from vmfabric.contract.desired import DesiredNode, DesiredVm, Presence
from vmfabric.contract.envelope import Trace
from vmfabric.contract.errors import TryAgain
from vmfabric.contract.explanation import ExplainOnNode, Finding, Findings
from vmfabric.contract.iface import IfaceDrifted
from vmfabric.contract.names import ClusterName, NodeName, VmName
from vmfabric.contract.node import NodeHeartbeat
from vmfabric.contract.retry import Retried
from vmfabric.node_agent.domain.actual import Actual, Interest
from vmfabric.node_agent.domain.explanation import explain, explain_node
from vmfabric.node_agent.domain.fabrics import fabric
from vmfabric.node_agent.domain.operations import CreateLink, Failure, Operation
from vmfabric.node_agent.domain.plan import Plan, plan
from vmfabric.node_agent.facts import confirmation, is_news, own_addresses
from vmfabric.node_agent.ports import KeptView, Kernel, KernelUnreadableError
from vmfabric.node_agent.uplink import UplinkMove
from vmfabric.reconcile.loop import Again, Dirty
from vmfabric.runtime.desired import Revised
from vmfabric.runtime.message import Publisher
from vmfabric.runtime.snapshot import Confirmations

_AGAIN_SECONDS = 1.0
_UNSAID = 100
_VM_PROBLEMS = 20
_VMS_IN_AN_EVENT = 100
"""NATS takes messages of up to 1 MiB; the repair of a VM that is made anew takes some 800 bytes."""

log = structlog.get_logger()

_drifts = Counter("vmfabric_drifts", "Passes that put something back that somebody else had changed")
_vms = Gauge("vmfabric_vms", "VMs of this node by state", ["state"])


class Agent:
    """The step of the node's reconcile loop. Each pass reads the kernel and looks at every VM."""

    def __init__(
        self,
        *,
        cluster: ClusterName,
        node: NodeName,
        view: KeptView,
        kernel: Kernel,
        publisher: Publisher,
        confirmations: Confirmations,
        uplink: UplinkMove,
    ) -> None:
        self._cluster = cluster
        self._node = node
        self._view = view
        self._kernel = kernel
        self._publisher = publisher
        self._confirmations = confirmations
        self._uplink = uplink
        self._in_the_way: tuple[str, ...] = ()
        """Of the uplink's way into its bridge."""
        self._seen: Actual | None = None
        self._is_fresh = False
        """Whether the kernel was read since we wrote to it; what others write marks everything."""
        self._converged: dict[VmName, DesiredVm] = {}
        self._from_memory: frozenset[VmName] = frozenset()
        """Those whose desired value nobody had confirmed yet."""
        self._node_converged = False
        self._problem: str | None = None
        """Of the node itself."""
        self._vm_problems: dict[VmName, str] = {}
        self._drifting: defaultdict[VmName | None, list[str]] = defaultdict(list)
        self._unsaid: deque[IfaceDrifted] = deque(maxlen=_UNSAID)
        self._reported: frozenset[tuple[VmName | None, str]] = frozenset()

    @property
    def seen(self) -> Actual | None:
        """The kernel as it was read last; None until it has been read."""
        return self._seen

    async def step(self, dirty: Dirty) -> Again:
        """One pass. KernelUnreadableError when the kernel cannot be read; nothing is done then."""
        if dirty.all or not self._is_fresh:
            await self._read()
        if self._seen is None:
            return Again()
        if not self._view.complete:
            # What was begun may have cut this node off from the bucket.
            await self._move_uplink(None)
            return Again()
        for vm in dirty.keys - self._view.vms.keys():
            self._confirmations.forget(vm)
        wanted = dict(self._view.vms)
        # What is done and said must be known after a crash: an older snapshot would undo it.
        self._view.save()
        await self._move_uplink(self._node_value())
        remembered = frozenset(self._view.remembered)
        before, after, failures = await self._reconcile([it.value for it in wanted.values()], remembered)
        unfinished = _unfinished(after, failures)
        self._problem = next((it.sentence for it in after.problems if it.vm is None), None)
        self._report(wanted, after, failures)
        # That a VM is still this node's changes its routes, and is no drift.
        asked_anew = self._from_memory ^ remembered
        self._from_memory = remembered
        self._notice_drift(wanted, before, unfinished, asked_anew)
        self._remember(wanted, unfinished)
        unsaid = await self._say(wanted)
        self._confirmations.save()
        return Again(frozenset(vm for vm in unfinished if vm is not None) | unsaid, _AGAIN_SECONDS)

    async def explain(self, asked: ExplainOnNode) -> Findings:
        """What the kernel has of a VM now, or what it should have and has not."""
        try:
            actual = await self._kernel.read(self._interest())
        except KernelUnreadableError as error:
            return Findings(findings=(Finding(about="kernel", is_right=False, sentence=f"cannot be read: {error}"),))
        wanted = {vm: it.value for vm, it in self._view.vms.items()}
        found = self._plan(list(wanted.values()), actual, frozenset(self._view.remembered))
        if asked.vm is not None:
            return Findings(findings=tuple(explain(asked.vm, wanted.get(asked.vm), actual, found)))
        of_vms = [finding for vm in sorted(wanted) for finding in explain(vm, wanted[vm], actual, found)]
        return Findings(findings=tuple(it for it in (*of_vms, *explain_node(found)) if not it.is_right))

    def retry(self) -> Retried:
        """The next pass does not wait until another try is due."""
        return Retried(cluster=self._cluster, node=self._node, sentence=self._uplink.retry(self._node_value()))

    def heartbeat(self) -> NodeHeartbeat | None:
        """That this node is alive; None until the kernel has been read."""
        if self._seen is None:
            return None
        return NodeHeartbeat(
            cluster=self._cluster,
            node=self._node,
            addresses=tuple(map(parse_host, own_addresses(self._seen))),
            vms=sum(vm.presence is not Presence.ABSENT for vm in self._converged.values()),
            problem=self._problem,
            vm_problems=self._vm_problems,
        )

    def _node_value(self) -> DesiredNode | None:
        return None if self._view.node is None else self._view.node.value

    def _interest(self) -> Interest:
        return fabric.interest(self._node_value()) | self._uplink.interest()

    async def _read(self) -> None:
        self._seen = await self._kernel.read(self._interest())
        self._is_fresh = True

    async def _move_uplink(self, node: DesiredNode | None) -> None:
        if self._seen is None:
            raise RuntimeError("the kernel is read before anything is moved")
        moved = await self._uplink.step(node, self._seen, self._interest())
        self._seen = moved.actual
        self._in_the_way = () if moved.problem is None else (moved.problem,)
        if moved.done and self._node_converged:
            self._drifting[None].extend(map(str, moved.done))

    def _plan(self, desired: list[DesiredVm], actual: Actual, remembered: frozenset[VmName]) -> Plan:
        return plan(desired, actual, node=self._node_value(), remembered=remembered, in_the_way=self._in_the_way)

    async def _reconcile(
        self, desired: list[DesiredVm], remembered: frozenset[VmName]
    ) -> tuple[Plan, Plan, tuple[Failure, ...]]:
        """The plan, what is left of it after it was carried out and read back, and what the kernel refused."""
        if self._seen is None:
            raise RuntimeError("the kernel is read before it is reconciled")
        before = self._plan(desired, self._seen, remembered)
        if not before.operations:
            return before, before, ()
        for operation in before.operations:
            log.debug("kernel.write", vm=operation.vm, operation=str(operation))
        for created in (it for it in before.operations if isinstance(it, CreateLink)):
            # The guest is not on the new link yet: whoever attaches guests has to be told again.
            self._confirmations.forget(created.vm)
        # Before the link is there: a process that dies after making it would not know that it has something to say.
        self._confirmations.save()
        self._is_fresh = False
        failures = await self._kernel.apply(before.operations)
        await self._read()
        return before, self._plan(desired, self._seen, remembered), failures

    def _report(self, wanted: Mapping[VmName, Revised[DesiredVm]], after: Plan, failures: Iterable[Failure]) -> None:
        found: set[tuple[VmName | None, str]] = {(problem.vm, problem.sentence) for problem in after.problems}
        found |= {(failure.operation.vm, str(failure)) for failure in failures}
        found |= {
            (None, f"nothing is wanted of {name}, which is a link of ours; it is left") for name in after.orphans
        }
        found |= {
            (None, f"the route to {it.prefix} has our protocol number and is no VM's; it is left")
            for it in after.stray_routes
        }
        of_vms = sorted((vm, sentence) for vm, sentence in found if vm is not None)
        self._vm_problems = dict(of_vms[:_VM_PROBLEMS])
        for vm, sentence in sorted(found - self._reported, key=str):
            log.warning(
                "node.problem",
                cluster=self._cluster,
                node=self._node,
                vm=vm,
                generation=wanted[vm].value.generation if vm is not None else None,
                sentence=sentence,
            )
        self._reported = frozenset(found)

    def _notice_drift(
        self,
        wanted: dict[VmName, Revised[DesiredVm]],
        before: Plan,
        unfinished: frozenset[VmName | None],
        asked_anew: frozenset[VmName],
    ) -> None:
        for operation in before.operations:
            vm = operation.vm
            if (self._was_converged(vm, wanted) and vm not in asked_anew) or vm in self._drifting:
                self._drifting[vm].append(str(operation))
        # What needs more than one pass is told when it is whole again.
        whole = sorted(self._drifting.keys() - unfinished, key=lambda vm: vm or "")
        if whole:
            _drifts.inc()
        for start in range(0, len(whole), _VMS_IN_AN_EVENT):
            self._tell_drift(whole[start : start + _VMS_IN_AN_EVENT])

    def _tell_drift(self, whole: Sequence[VmName | None]) -> None:
        repaired = tuple(words for vm in whole for words in self._drifting.pop(vm))
        vms = tuple(vm for vm in whole if vm is not None)
        log.warning("node.drifted", vms=vms, repaired=repaired[:50])
        self._unsaid.append(IfaceDrifted(cluster=self._cluster, node=self._node, vms=vms, repaired=repaired))

    def _was_converged(self, vm: VmName | None, wanted: dict[VmName, Revised[DesiredVm]]) -> bool:
        if vm is None:
            return self._node_converged
        return vm in wanted and self._converged.get(vm) == wanted[vm].value

    def _remember(self, wanted: dict[VmName, Revised[DesiredVm]], unfinished: frozenset[VmName | None]) -> None:
        self._node_converged = None not in unfinished
        finished = {vm: it.value for vm, it in wanted.items() if vm not in unfinished}
        # Nothing of a VM works on a node that is not set up, but what is gone is gone.
        self._converged = {
            vm: it for vm, it in finished.items() if self._node_converged or it.presence is Presence.ABSENT
        }
        _vms.labels("converged").set(len(self._converged))
        _vms.labels("unfinished").set(len(wanted) - len(self._converged))

    async def _say(self, wanted: dict[VmName, Revised[DesiredVm]]) -> frozenset[VmName]:
        """Publish what is not confirmed yet. Returns the VMs whose fact could not be published."""
        await self._say_drifts()
        due = [wanted[vm] for vm in self._converged if not self._confirmations.is_confirmed(wanted[vm])]
        said = await asyncio.gather(*(self._confirm(desired) for desired in due))
        return frozenset(desired.value.vm for desired, done in zip(due, said, strict=True) if not done)

    async def _confirm(self, desired: Revised[DesiredVm]) -> bool:
        if is_news(desired.value, self._confirmations.last(desired.value.vm)):
            try:
                await self._publisher.publish(confirmation(desired.value), desired.value.trace())
            except TryAgain as error:
                log.debug("fact.later", vm=desired.value.vm, reason=error.sentence)
                return False
        self._confirmations.confirm(desired)
        return True

    async def _say_drifts(self) -> None:
        while self._unsaid:
            try:
                await self._publisher.publish(self._unsaid[0], Trace.new())
            except TryAgain as error:
                log.debug("fact.later", reason=error.sentence)
                return
            self._unsaid.popleft()


def _unfinished(after: Plan, failures: Iterable[Failure]) -> frozenset[VmName | None]:
    operations: list[Operation] = [*after.operations, *(failure.operation for failure in failures)]
    return frozenset({it.vm for it in operations} | {problem.vm for problem in after.problems})
