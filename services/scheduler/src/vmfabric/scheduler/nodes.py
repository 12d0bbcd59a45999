"""Which nodes are heard: from heartbeats to node.joined, node.lost and node.returned."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from prometheus_client import Gauge

from vmfabric.contract.admin import NodeState
from vmfabric.contract.envelope import Trace, outgoing
from vmfabric.contract.model import Event
from vmfabric.contract.names import ClusterName, NodeName
from vmfabric.contract.node import NodeHeartbeat, NodeJoined, NodeLost, NodeReturned
from vmfabric.runtime.clock import Clock
from vmfabric.scheduler.handlers import SOURCE
from vmfabric.scheduler.ports import NodeRow, Store

log = structlog.get_logger()

_heard = Gauge("vmfabric_nodes", "Nodes by state", ["state"])

Key = tuple[ClusterName, NodeName]


@dataclass(frozen=True, slots=True)
class Heard:
    """The last heartbeat of a node."""

    beat: NodeHeartbeat
    at: datetime


class Nodes:
    """Remembers the last heartbeat of each node; the database hears of changes of state, and now and then."""

    def __init__(self, store: Store, clock: Clock, *, lost_after: float = 10.0, kept_every: float = 5.0) -> None:
        self._store = store
        self._clock = clock
        self._lost_after = timedelta(seconds=lost_after)
        self._kept_every = timedelta(seconds=kept_every)
        self._heard: dict[Key, Heard] = {}
        self._strangers: set[Key] = set()
        self._started = clock.now()

    def heard(self, beat: NodeHeartbeat) -> None:
        """A heartbeat has come."""
        self._heard[beat.cluster, beat.node] = Heard(beat, self._clock.now())

    async def review(self) -> None:
        """Compare what was heard with what is kept."""
        now = self._clock.now()
        async with self._store.transaction() as tx:
            rows = await tx.nodes()
        known = {(row.spec.cluster, row.spec.name): row for row in rows}
        for key in self._heard.keys() - known.keys() - self._strangers:
            self._strangers.add(key)
            log.warning("node.unknown", cluster=key[0], node=key[1], todo="node.apply makes it known")
        for key, row in known.items():
            await self._review_one(key, row, now)
        for state in NodeState:
            _heard.labels(state).set(sum(row.state is state for row in rows))

    async def _review_one(self, key: Key, row: NodeRow, now: datetime) -> None:
        heard = self._heard.get(key)
        last = heard.at if heard else max(row.heard_at or self._started, self._started)
        state = self._state(row, heard, now - last)
        is_stale = heard is not None and (row.heard_at is None or heard.at - row.heard_at >= self._kept_every)
        addresses = heard.beat.addresses if heard else row.addresses
        if state is row.state and not is_stale and addresses == row.addresses:
            return
        async with self._store.transaction() as tx:
            await tx.save_node_state(*key, state, heard.at if heard else row.heard_at, addresses)
            event = _event(row, state)
            if event is not None:
                log.info("node.state", cluster=key[0], node=key[1], state=state, was=row.state)
                await tx.send([outgoing(event, source=SOURCE, trace=Trace.new(), at=now)])

    def _state(self, row: NodeRow, heard: Heard | None, silent: timedelta) -> NodeState:
        if heard is not None and silent < self._lost_after:
            return NodeState.JOINED
        if row.state is NodeState.JOINED and silent >= self._lost_after:
            return NodeState.LOST
        return row.state


def _event(row: NodeRow, state: NodeState) -> Event | None:
    cluster, node = row.spec.cluster, row.spec.name
    match row.state, state:
        case NodeState.APPLIED, NodeState.JOINED:
            return NodeJoined(cluster=cluster, node=node)
        case NodeState.JOINED, NodeState.LOST:
            return NodeLost(cluster=cluster, node=node)
        case NodeState.LOST, NodeState.JOINED:
            return NodeReturned(cluster=cluster, node=node)
        case _:
            return None
