"""Keeps the node's dnsmasq at what the guests need, and says which of them it cannot serve."""

import asyncio
from collections.abc import Iterator

import structlog
from prometheus_client import Counter

from vmfabric.contract.explanation import Finding
from vmfabric.contract.names import ClusterName, NodeName, VmName
from vmfabric.node_agent.domain.actual import Actual
from vmfabric.node_agent.domain.dhcp import Serving, serving
from vmfabric.node_agent.domain.restarts import Restarts
from vmfabric.node_agent.kernel.dnsmasq import Dnsmasq, NotStartedError
from vmfabric.reconcile.loop import Again, Dirty
from vmfabric.runtime.desired import DesiredView

_ABOUT = "dhcp"
_PROCESS = "dnsmasq"
"""The one key of its loop."""

log = structlog.get_logger()

_starts = Counter("vmfabric_dhcp_starts", "Starts of dnsmasq: for another configuration, or because it had ended")


class Dhcp:
    """The step of a loop of its own, so that no link waits for a dnsmasq that does not start."""

    def __init__(self, *, cluster: ClusterName, node: NodeName, server: Dnsmasq) -> None:
        self._cluster = cluster
        self._node = node
        self._server = server
        self._wanted: Serving | None = None
        self._tried: str | None = None
        """The configuration of the last start."""
        self._restarts = Restarts()
        self._failure: str | None = None
        self._reported: frozenset[tuple[VmName | None, str]] = frozenset()

    def want(self, view: DesiredView, seen: Actual | None) -> bool:
        """Learn what should be. True when the step has something to do."""
        if seen is None or not view.complete:
            return False
        before, self._wanted = self._wanted, serving((it.value for it in view.vms.values()), seen.links)
        return self._wanted != before

    async def step(self, _dirty: Dirty) -> Again:
        """One look at the process, and what follows from it."""
        if self._wanted is None:
            return Again()
        configuration = self._wanted.configuration
        if configuration is None:
            self._failure = None
            await asyncio.to_thread(self._server.remove)
        elif await asyncio.to_thread(self._server.serves) != configuration:
            await self._start(configuration)
        else:
            self._failure = None
        self._report(self._wanted)
        pause = self._restarts.due - asyncio.get_running_loop().time()
        return Again(frozenset({_PROCESS}), pause) if self._failure is not None else Again()

    def findings(self, vm: VmName | None) -> Iterator[Finding]:
        """What an operator is told: of a VM, or in an audit what of all is not right."""
        if self._wanted is None:
            return
        for problem in self._wanted.problems:
            if vm in {None, problem.vm}:
                yield Finding(vm=problem.vm, about=_ABOUT, is_right=False, sentence=problem.sentence)
        for answer in self._wanted.answers:
            if vm in {None, answer.vm} and self._failure is not None:
                yield Finding(vm=answer.vm, about=_ABOUT, is_right=False, sentence=self._failure)
            elif vm == answer.vm:
                sentence = f"its DHCP requests on {answer.responder.interface} are answered with {answer.address}"
                yield Finding(vm=vm, about=_ABOUT, is_right=True, sentence=sentence)

    async def _start(self, configuration: str) -> None:
        now = asyncio.get_running_loop().time()
        is_new = configuration != self._tried
        if is_new:
            self._restarts = Restarts()
        elif now < self._restarts.due:
            return
        self._restarts = self._restarts.started(now)
        self._tried = configuration
        _starts.inc()
        try:
            await asyncio.to_thread(self._server.start, configuration)
        except NotStartedError as error:
            self._failure = f"no DHCP request is answered on this node, dnsmasq does not start: {error}"
        else:
            self._failure = None
            log.info("dhcp.started", again=not is_new)

    def _report(self, wanted: Serving) -> None:
        found: set[tuple[VmName | None, str]] = {(problem.vm, problem.sentence) for problem in wanted.problems}
        if wanted.answers and self._failure is not None:
            found.add((None, self._failure))
        for vm, sentence in sorted(found - self._reported, key=str):
            log.warning("node.problem", cluster=self._cluster, node=self._node, vm=vm, sentence=sentence)
        self._reported = frozenset(found)
