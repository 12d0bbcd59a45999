"""Keeps FRR as it should be, and says what it proves to advertise."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import structlog
from prometheus_client import Counter, Gauge
from pydantic import BaseModel

from vmfabric.bgp_announcer.domain.configuration import wanted
from vmfabric.bgp_announcer.domain.plan import plan
from vmfabric.bgp_announcer.domain.routes import answer, session_changes
from vmfabric.bgp_announcer.ports import Frr, FrrError
from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.contract.envelope import Trace
from vmfabric.contract.errors import Code
from vmfabric.contract.names import VmName
from vmfabric.contract.route import RouteAnnounced, RouteWithdrawn
from vmfabric.reconcile.loop import Again, Dirty
from vmfabric.runtime.clock import Clock
from vmfabric.runtime.desired import DesiredView, Revised
from vmfabric.runtime.message import Publisher
from vmfabric.runtime.snapshot import Confirmations, Confirmed, load, save

_SETTLE_SECONDS = 12.0
"""More than twice FRR's route-map delay-timer of 5 s."""
_FIRST_LOOK = 0.015
_LONGEST_LOOK = 1.0

log = structlog.get_logger()

_changes = Counter("vmfabric_frr_changes", "Lines of configuration entered into FRR")
_up = Gauge("vmfabric_bgp_sessions_up", "Established sessions with reflectors")


Fact = RouteAnnounced | RouteWithdrawn


class _Sessions(BaseModel):
    up: dict[HostAddress, bool] = {}


class Announcer:
    """The reconciler of one node; `step` and `look_at_sessions` take turns."""

    def __init__(
        self,
        view: DesiredView,
        frr: Frr,
        *,
        publisher: Publisher,
        confirmations: Confirmations,
        sessions: Path,
        clock: Clock,
    ) -> None:
        self._view = view
        self._frr = frr
        self._publisher = publisher
        self._confirmations = confirmations
        self._sessions_file = sessions
        self._sessions = dict((load(sessions, _Sessions) or _Sessions()).up)
        self._unsettled: set[VmName] = set()
        self._said: dict[VmName, Fact] = {}
        self._looks: dict[VmName, int] = {}
        self._clock = clock
        # A predecessor may have changed the configuration just before it ended.
        self._changed_at = clock.monotonic()
        self._turn = asyncio.Lock()

    async def step(self, dirty: Dirty) -> Again:
        """Configure when everything is to be looked at; then prove what is wanted of each VM."""
        async with self._turn:
            if not self._view.complete or self._view.node is None:
                return Again()
            if dirty.all:
                await self._configure()
                self._forget_gone()
            looked_at = [
                revised
                for name, revised in self._view.vms.items()
                if name in self._unsettled or not self._confirmations.is_confirmed(revised)
            ]
            waiting = await self._prove(looked_at)
            self._confirmations.save()
            return Again(frozenset(waiting), after=self._pause(waiting))

    async def look_at_sessions(self) -> bool:
        """Say which sessions came and went; whether any did, since each change concerns every route."""
        async with self._turn:
            node = self._view.node
            if node is None:
                return False
            ours = set(self._reflectors())
            now = {peer: session for peer, session in (await self._frr.sessions()).items() if peer in ours}
            changes = session_changes(node.value.cluster, node.value.node, self._sessions, now)
            _up.set(sum(session.is_established for session in now.values()))
            if not changes:
                return False
            for change in changes:
                await self._publisher.publish(change, Trace.new())
                log.info("bgp.session", reflector=str(change.reflector), change=type(change).__name__)
            self._sessions = {peer: session.is_established for peer, session in now.items()}
            save(self._sessions_file, _Sessions(up=self._sessions))
            self._unsettled |= set(self._view.vms)
            return True

    async def _configure(self) -> None:
        node, pools = self._view.node, self._view.pools
        if node is None:
            return
        should = wanted(node.value, pools.value.prefixes if pools else ())
        tidy = self._clock.monotonic() - self._changed_at > _SETTLE_SECONDS
        changes = plan(should, await self._frr.running(), node.value.asn, tidy=tidy)
        if not changes:
            return
        self._changed_at = self._clock.monotonic()
        log.info("frr.configure", lines=len(changes), first=[str(change) for change in changes[:3]])
        _changes.inc(len(changes))
        await self._frr.configure(changes)
        left = plan(should, await self._frr.running(), node.value.asn, tidy=tidy)
        refused = [str(change) for change in left if change in changes]
        if refused:
            raise FrrError(Code.INTERNAL, f"FRR took these lines without a word and does not show them: {refused}")

    async def _prove(self, looked_at: Sequence[Revised[DesiredVm]]) -> list[VmName]:
        """Publish what FRR proves; returns the VMs that have to be looked at again."""
        found = await self._frr.routes([prefix for revised in looked_at for prefix in revised.value.prefixes()])
        facts = [(revised, answer(revised.value, found, self._reflectors())) for revised in looked_at]
        # Not a TaskGroup: in Python 3.11 one that fails leaves its task half cancelled, and the loop's next time-out
        # would end the loop.
        said = await asyncio.gather(
            *(self._say(revised, fact) for revised, fact in facts if fact is not None), return_exceptions=True
        )
        for error in said:
            if error is not None:
                raise error
        waiting = [revised.value.vm for revised, fact in facts if not self._is_settled(fact)]
        self._unsettled -= {revised.value.vm for revised in looked_at} - set(waiting)
        return waiting

    async def _say(self, revised: Revised[DesiredVm], fact: Fact) -> None:
        vm = revised.value.vm
        if self._confirmations.is_confirmed(revised) and self._said.get(vm) == fact:
            return
        if _is_news(revised.value, self._confirmations.last(vm)):
            await self._publisher.publish(fact, revised.value.trace())
        self._confirmations.confirm(revised)
        self._said[vm] = fact
        log.info(type(fact).subject_template.stem, vm=vm, cluster=fact.cluster, node=fact.node,
                 generation=fact.generation, trace_id=revised.value.trace_id)  # fmt: skip

    def _is_settled(self, fact: Fact | None) -> bool:
        """Whether nothing more is to come: withdrawn, or advertised on every session that is up."""
        if not isinstance(fact, RouteAnnounced):
            return fact is not None
        up = {reflector for reflector, is_up in self._sessions.items() if is_up}
        return all(up <= set(route.reflectors) for route in fact.routes)

    def _reflectors(self) -> tuple[HostAddress, ...]:
        node = self._view.node
        return tuple(reflector.address for reflector in node.value.reflectors) if node else ()

    def _forget_gone(self) -> None:
        for vm in set(self._said) - set(self._view.vms):
            del self._said[vm]
            self._confirmations.forget(vm)
        self._unsettled &= set(self._view.vms)

    def _pause(self, waiting: Sequence[VmName]) -> float:
        """The next look comes soon for what is new, and ever later for what has been waited for long."""
        self._looks = {vm: self._looks.get(vm, 0) + 1 for vm in waiting}
        least = min(self._looks.values(), default=1)
        return min(_FIRST_LOOK * 1.5 ** (least - 1), _LONGEST_LOOK)


def _is_news(desired: DesiredVm, last: Confirmed | None) -> bool:
    """A VM that is now absent was withdrawn when it lost its routes."""
    return not (
        desired.presence is Presence.ABSENT
        and last is not None
        and (last.generation, last.presence) == (desired.generation, Presence.WIRED)
    )
