"""Keeps FRR as it should be, and says what it proves to advertise."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from prometheus_client import Counter, Gauge
from pydantic import BaseModel

from vmfabric.bgp_announcer.domain.configuration import ROUTE_MAP_DELAY, wanted
from vmfabric.bgp_announcer.domain.lines import Line
from vmfabric.bgp_announcer.domain.plan import plan, renewal
from vmfabric.bgp_announcer.domain.routes import Found, Route, Session, answer, is_in_step, lost, session_changes
from vmfabric.bgp_announcer.ports import Frr, FrrDownError, FrrError
from vmfabric.contract.addresses import HostAddress, Prefix
from vmfabric.contract.desired import DesiredPools, DesiredVm, FabricNode, Presence
from vmfabric.contract.envelope import Trace
from vmfabric.contract.errors import Code
from vmfabric.contract.names import VmName
from vmfabric.contract.route import LostRoute, RouteAnnounced, RouteLost, RouteWithdrawn
from vmfabric.reconcile.loop import Again, Dirty
from vmfabric.runtime.clock import Clock
from vmfabric.runtime.desired import DesiredView, Revised, fabric_node
from vmfabric.runtime.message import Publisher
from vmfabric.runtime.snapshot import Confirmations, Confirmed, load, save

_SETTLE_SECONDS = 4.0 * ROUTE_MAP_DELAY
_PROOF_SECONDS = 1.0
"""So long after a change of its configuration FRR may not have taken the kernel's routes yet."""
_LOST_SECONDS = 5.0
_UNEASY_SECONDS = 2.0
"""A VM whose routes are not as they should be for so long is a reason to ask zebra."""
_DEAF_SECONDS = 3.0
"""So long bgpd has to have the same that zebra does not have: it may be behind, with many routes at once."""
_RENEWED_SECONDS = 30.0
_RENEWALS = 3
_ASKED_ABOUT = 100
"""VMs of which zebra is asked in one look; each question takes some 0.2 ms."""
_FIRST_LOOK = 0.015
_LONGEST_LOOK = 1.0
_SLOWER = 20
"""So many times the pause grows at most."""

log = structlog.get_logger()

_changes = Counter("vmfabric_frr_changes", "Lines of configuration entered into FRR")
_up = Gauge("vmfabric_bgp_sessions_up", "Established sessions with reflectors")


Fact = RouteAnnounced | RouteWithdrawn | RouteLost


@dataclass(frozen=True, slots=True)
class _Dissent:
    """What zebra and bgpd have of a prefix, where these are not the same."""

    prefix: Prefix
    metric: int | None
    route: Route | None


class _Sessions(BaseModel):
    up: dict[HostAddress, bool] = {}


class Announcer:
    """The reconciler of one node; all that asks FRR takes turns."""

    def __init__(
        self,
        view: DesiredView,
        frr: Frr,
        *,
        publisher: Publisher,
        confirmations: Confirmations,
        sessions: Path,
        clock: Clock,
        audit_seconds: float = 10.0,
    ) -> None:
        self._view = view
        self._frr = frr
        self._publisher = publisher
        self._confirmations = confirmations
        self._sessions_file = sessions
        self._sessions = dict((load(sessions, _Sessions) or _Sessions()).up)
        self._unsettled: set[VmName] = set()
        self._audited: set[VmName] = set()
        self._said: dict[VmName, Fact] = {}
        self._wanted: tuple[tuple[FabricNode, DesiredPools | None], tuple[Line, ...]] | None = None
        self._looks: dict[VmName, int] = {}
        self._missing_since: dict[VmName, float] = {}
        self._waiting_since: dict[VmName, float] = {}
        self._dissent: _Dissent | None = None
        self._dissent_since = 0.0
        self._renewed_at = -_RENEWED_SECONDS
        self._renewals = 0
        self._clock = clock
        self._audit_seconds = audit_seconds
        self._audited_at = clock.monotonic()
        # A predecessor may have changed the configuration just before it ended.
        self._changed_at = clock.monotonic()
        self._turn = asyncio.Lock()

    async def step(self, dirty: Dirty) -> Again:
        """Configure when everything is to be looked at; then prove what is wanted of each VM."""
        async with self._turn:
            node = fabric_node(self._view)
            if not self._view.complete or node is None:
                return Again()
            if dirty.all or self._awaits_withdrawal():
                await self._configure(node)
            if dirty.all:
                self._forget_gone()
                self._audit()
            looked_at = [revised for revised in self._view.vms.values() if self._is_open(revised)]
            waiting = await self._prove(looked_at)
            self._confirmations.save()
            return Again(frozenset(waiting), after=self._pause(waiting))

    async def look_at_sessions(self) -> bool:
        """Say which sessions came and went; whether any did, since each change concerns every route."""
        async with self._turn:
            node = fabric_node(self._view)
            if node is None:
                return False
            ours = set(self._reflectors())
            now = {peer: session for peer, session in (await self._found_sessions()).items() if peer in ours}
            changes = session_changes(node.cluster, node.node, self._sessions, now)
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

    async def _found_sessions(self) -> Mapping[HostAddress, Session]:
        try:
            return await self._frr.sessions()
        except FrrDownError as error:
            return {peer: Session(is_established=False, reason=error.sentence) for peer in self._sessions}

    async def _configure(self, node: FabricNode) -> None:
        should = self._lines(node)
        tidy = self._clock.monotonic() - self._changed_at > _SETTLE_SECONDS
        changes = plan(should, await self._frr.running(), node.asn, tidy=tidy)
        if not changes:
            return
        self._changed_at = self._clock.monotonic()
        self._unsettled |= set(self._view.vms)
        log.info("frr.configure", lines=len(changes), first=[str(change) for change in changes[:3]])
        _changes.inc(len(changes))
        await self._frr.configure(changes)
        left = plan(should, await self._frr.running(), node.asn, tidy=tidy)
        refused = [str(change) for change in left if change in changes]
        if refused:
            raise FrrError(Code.INTERNAL, f"FRR took these lines without a word and does not show them: {refused}")

    def _lines(self, node: FabricNode) -> tuple[Line, ...]:
        """What FRR should have; made anew when the node or its pools have changed."""
        pools = self._view.pools
        asked = (node, pools.value if pools else None)
        if self._wanted is None or self._wanted[0] != asked:
            self._wanted = asked, wanted(*asked)
        return self._wanted[1]

    def _awaits_withdrawal(self) -> bool:
        """An FRR that has just started has no route only because it is not configured yet."""
        return any(
            not revised.value.presence.is_announced
            and revised.value.presence is not Presence.PREPARED
            and not self._confirmations.is_confirmed(revised)
            for revised in self._view.vms.values()
        )

    def _audit(self) -> None:
        """From time to time what has been proven is looked at again."""
        now = self._clock.monotonic()
        if now - self._audited_at >= self._audit_seconds:
            self._audited_at = now
            self._audited = set(self._view.vms)

    def _is_open(self, revised: Revised[DesiredVm]) -> bool:
        """Whether something may be to be said. Of what was never announced nothing is: a `route.withdrawn` that came
        late would be taken for that of the same generation's end.
        """
        if revised.value.presence is Presence.PREPARED:
            return False
        vm = revised.value.vm
        return vm in self._unsettled or vm in self._audited or not self._confirmations.is_confirmed(revised)

    async def _prove(self, looked_at: Sequence[Revised[DesiredVm]]) -> list[VmName]:
        """Publish what FRR proves; returns the VMs that have to be looked at again."""
        found = await self._frr.routes([prefix for revised in looked_at for prefix in revised.value.prefixes()])
        of_others = self._announced() if any(not it.value.presence.is_announced for it in looked_at) else frozenset()
        facts = [(revised, self._answer(revised.value, found, of_others)) for revised in looked_at]
        # Not a TaskGroup: in Python 3.11 one that fails leaves its task half cancelled, and the loop's next time-out
        # would end the loop.
        said = await asyncio.gather(
            *(self._say(revised, fact) for revised, fact in facts if fact is not None), return_exceptions=True
        )
        errors = [error for error in said if error is not None]
        # The view may have forgotten some of them since.
        waiting = {revised.value.vm: revised.value for revised, fact in facts if not self._is_settled(fact)}
        # A bus that is away is no reason to leave FRR as it is.
        await self._notice_deafness(waiting, found)
        if errors:
            raise errors[0]
        seen = {revised.value.vm for revised in looked_at}
        self._unsettled -= seen
        self._audited -= seen
        self._unsettled |= set(waiting)
        for revised in looked_at:
            await self._notice_loss(revised, lost(revised.value, found))
        return list(waiting)

    def _announced(self) -> frozenset[Prefix]:
        announced = (it.value for it in self._view.vms.values() if it.value.presence.is_announced)
        return frozenset(prefix for desired in announced for prefix in desired.prefixes())

    def _answer(self, desired: DesiredVm, found: Found, of_others: Collection[Prefix]) -> Fact | None:
        node = fabric_node(self._view)
        fact = None if node is None else answer(desired, found, node, of_others)
        is_proof = self._clock.monotonic() - self._changed_at > _PROOF_SECONDS
        return fact if is_proof or not isinstance(fact, RouteWithdrawn) else None

    async def _notice_deafness(self, waiting: Mapping[VmName, DesiredVm], found: Found) -> None:
        """A bgpd whose zebra was started again may not hear of the kernel's routes any more: have it ask anew.

        Each time its routes go for a moment, so it is not tried for ever.
        """
        now, node = self._clock.monotonic(), fabric_node(self._view)
        self._waiting_since = {vm: self._waiting_since.get(vm, now) for vm in waiting}
        long = [vm for vm, since in self._waiting_since.items() if now - since > _UNEASY_SECONDS]
        self._renewals = self._renewals if long else 0
        if node is None or not long or now - self._renewed_at < _RENEWED_SECONDS or self._renewals > _RENEWALS:
            return
        dissent = await self._find_dissent([waiting[vm] for vm in long[:_ASKED_ABOUT]], found, node)
        if dissent != self._dissent:
            self._dissent, self._dissent_since = dissent, now
        if dissent is not None and now - self._dissent_since > _DEAF_SECONDS:
            await self._renew(dissent, node)

    async def _find_dissent(self, waiting: Sequence[DesiredVm], found: Found, node: FabricNode) -> _Dissent | None:
        """The first of any of them: one may wait for another reason."""
        for prefix in (prefix for desired in waiting for prefix in desired.prefixes()):
            metric = await self._frr.metric(prefix)
            if not is_in_step(metric, found[prefix], node):
                return _Dissent(prefix, metric, found[prefix])
        return None

    async def _renew(self, dissent: _Dissent, node: FabricNode) -> None:
        self._renewals += 1
        is_hopeless = self._renewals > _RENEWALS
        log.warning(
            "frr.deaf",
            prefix=str(dissent.prefix),
            zebra=dissent.metric,
            bgpd=str(dissent.route),
            todo="start all of FRR again" if is_hopeless else "bgpd asks zebra for the kernel's routes anew",
        )
        if not is_hopeless:
            self._dissent = None
            self._renewed_at = self._changed_at = self._clock.monotonic()
            await self._frr.configure(renewal(node.asn))

    async def _notice_loss(self, revised: Revised[DesiredVm], prefixes: Sequence[Prefix]) -> None:
        """What was announced, and is not in FRR any more, is said once."""
        desired, now = revised.value, self._clock.monotonic()
        if not prefixes or not self._confirmations.is_confirmed(revised):
            self._missing_since.pop(desired.vm, None)
            return
        if now - self._missing_since.setdefault(desired.vm, now) < _LOST_SECONDS:
            return
        routes = tuple([LostRoute(prefix=it, selected=await self._frr.selected(it)) for it in prefixes])
        fact = RouteLost(
            cluster=desired.cluster, vm=desired.vm, node=desired.node, generation=desired.generation, routes=routes
        )
        await self._publisher.publish(fact, desired.trace())
        # So that its return is news, after a restart too.
        self._confirmations.forget(desired.vm)
        self._said[desired.vm] = fact
        log.warning("route.lost", vm=desired.vm, cluster=desired.cluster, node=desired.node,
                    generation=desired.generation, selected=[route.selected for route in routes])  # fmt: skip

    async def _say(self, revised: Revised[DesiredVm], fact: Fact) -> None:
        vm = revised.value.vm
        # What an audit finds as confirmed by an earlier process has been said by that.
        known = self._said.get(vm, fact if vm in self._audited and vm not in self._unsettled else None)
        if self._confirmations.is_confirmed(revised) and known == fact:
            self._said[vm] = fact
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
        node = fabric_node(self._view)
        return tuple(reflector.address for reflector in node.reflectors) if node else ()

    def _forget_gone(self) -> None:
        for vm in set(self._said) - set(self._view.vms):
            del self._said[vm]
            self._missing_since.pop(vm, None)
            self._confirmations.forget(vm)
        self._unsettled &= set(self._view.vms)

    def _pause(self, waiting: Sequence[VmName]) -> float:
        """The next look comes soon for what is new, and ever later for what has been waited for long."""
        self._looks = {vm: self._looks.get(vm, 0) + 1 for vm in waiting}
        least = min(self._looks.values(), default=1)
        # A power without a limit overflows after half an hour of waiting.
        return min(_FIRST_LOOK * 1.5 ** min(least - 1, _SLOWER), _LONGEST_LOOK)


def _is_news(desired: DesiredVm, last: Confirmed | None) -> bool:
    """A VM that is now absent was withdrawn when it lost its routes."""
    return not (
        desired.presence is Presence.ABSENT
        and last is not None
        and (last.generation, last.presence) == (desired.generation, Presence.WIRED)
    )
