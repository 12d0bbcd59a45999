"""Which nodes are heard: from heartbeats to node.joined, node.lost and node.returned."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.admin import NodeState
from vmfabric.contract.envelope import Trace, outgoing
from vmfabric.contract.model import Event
from vmfabric.contract.names import VmName
from vmfabric.contract.node import NodeHeartbeat, NodeJoined, NodeLost, NodeReturned
from vmfabric.runtime.clock import Clock
from vmfabric.scheduler import metrics
from vmfabric.scheduler.domain.changes import Heard, NodeKey
from vmfabric.scheduler.handlers import SOURCE
from vmfabric.scheduler.ports import NodeRow, Store
from vmfabric.scheduler.transaction import transaction

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Beat:
    addresses: tuple[HostAddress, ...]
    at: datetime
    moment: float
    """Of the monotonic clock: a wall clock that is set makes no node silent."""
    problem: str | None
    vm_problems: Mapping[VmName, str]


class Nodes:
    """Remembers the last heartbeat of each node; the database hears of changes of state, and now and then."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        committed: Callable[[], None],
        is_listening: Callable[[], bool] = lambda: True,
        lost_after: float = 10.0,
        kept_every: float = 5.0,
    ) -> None:
        """`is_listening` says whether heartbeats can arrive at all: while they cannot, no node is silent."""
        self._store = store
        self._clock = clock
        self._committed = committed
        self._is_listening = is_listening
        self._lost_after = lost_after
        self._kept_every = timedelta(seconds=kept_every)
        self._beats: dict[NodeKey, _Beat] = {}
        self._strangers: set[NodeKey] = set()
        self._listening_since = clock.monotonic()

    def heard(self, beat: NodeHeartbeat) -> None:
        """A heartbeat has come."""
        self._beats[NodeKey(beat.cluster, beat.node)] = _Beat(
            beat.addresses, self._clock.now(), self._clock.monotonic(), beat.problem, beat.vm_problems
        )

    def problem_of(self, node: NodeKey, vm: VmName) -> str | None:
        """What is in the way of a VM there, by its last heartbeat."""
        beat = self._beats.get(node)
        return None if beat is None else beat.vm_problems.get(vm)

    async def review(self) -> None:
        """Compare what was heard with what is kept."""
        if not self._is_listening():
            self._listening_since = self._clock.monotonic()
        async with transaction(self._store) as tx:
            rows = await tx.rows.nodes()
        self._name_strangers(rows)
        for state in NodeState:
            metrics.nodes.labels(state).set(sum(row.heard.state is state for row in rows))
        if any(self._now_heard(row) != row.heard for row in rows):
            await self._keep()

    async def _keep(self) -> None:
        async with transaction(self._store) as tx:
            for row in await tx.rows.nodes(lock=True):
                heard = self._now_heard(row)
                if heard == row.heard:
                    continue
                tx.put_heard(row.key, heard)
                if heard.state is NodeState.JOINED and row.drain is not None and row.drain.fence is not None:
                    tx.put_drain(row.key, row.drain.model_copy(update={"fence": None}))
                event = _event(row, heard.state)
                if event is not None:
                    log.info("node.state", **row.key._asdict(), state=heard.state, was=row.heard.state)
                    tx.send([outgoing(event, source=SOURCE, trace=Trace.new(), at=self._clock.now())])
        self._committed()

    def _name_strangers(self, rows: Sequence[NodeRow]) -> None:
        unknown = self._beats.keys() - {row.key for row in rows}
        for key in [key for key in unknown if not self._is_heard(self._beats[key])]:
            # One that was deleted begins anew when it is applied again.
            unknown.remove(key)
            self._strangers.discard(key)
            del self._beats[key]
        for key in unknown - self._strangers:
            self._strangers.add(key)
            log.warning("node.unknown", **key._asdict(), todo="node.apply makes it known")

    def _now_heard(self, row: NodeRow) -> Heard:
        """What is to be kept of it: as it is, unless anything but the moment changed, or that has become old."""
        kept, beat = row.heard, self._beats.get(row.key)
        now = self._clock.monotonic()
        silent = now - max(beat.moment if beat else self._listening_since, self._listening_since)
        if beat is None:
            return replace(kept, state=self._unless_lost(kept, silent))
        state = NodeState.JOINED if self._is_heard(beat) else self._unless_lost(kept, silent)
        now_heard = Heard(state, beat.at, beat.addresses, beat.problem)
        is_old = kept.at is None or abs(beat.at - kept.at) >= self._kept_every
        if is_old or replace(now_heard, at=kept.at) != kept:
            return now_heard
        return kept

    def _is_heard(self, beat: _Beat) -> bool:
        return self._clock.monotonic() - beat.moment < self._lost_after

    def _unless_lost(self, kept: Heard, silent: float) -> NodeState:
        return NodeState.LOST if kept.state is NodeState.JOINED and silent >= self._lost_after else kept.state


def _event(row: NodeRow, state: NodeState) -> Event | None:
    cluster, node = row.spec.cluster, row.spec.name
    match row.heard.state, state:
        case NodeState.APPLIED, NodeState.JOINED:
            return NodeJoined(cluster=cluster, node=node)
        case NodeState.JOINED, NodeState.LOST:
            return NodeLost(cluster=cluster, node=node)
        case NodeState.LOST, NodeState.JOINED:
            return NodeReturned(cluster=cluster, node=node)
        case _:
            return None
