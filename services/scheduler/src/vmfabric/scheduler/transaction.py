"""A unit of work: reads once, sees what it changed itself, writes everything together at its end."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from vmfabric.contract.cluster import ClusterSpec, NodeSpec
from vmfabric.contract.envelope import Outgoing
from vmfabric.contract.names import ClusterName, NodeName, ResourceName
from vmfabric.contract.placement import PlacementDecision
from vmfabric.contract.vm import VmRequested
from vmfabric.scheduler.domain.candidate import Candidate, Usage
from vmfabric.scheduler.domain.changes import Changes, Heard, LeftKey, NodeKey
from vmfabric.scheduler.domain.drain import Drain
from vmfabric.scheduler.domain.placement import Market
from vmfabric.scheduler.domain.ranking import Decision
from vmfabric.scheduler.domain.record import LeftBehind, Stamp, VmKey, VmRecord
from vmfabric.scheduler.domain.supply import Needs
from vmfabric.scheduler.domain.wish import groups_of, wish_of
from vmfabric.scheduler.ports import NodeRow, Rows, Store
from vmfabric.scheduler.supplies import Supplies


@asynccontextmanager
async def transaction(store: Store, supplies: Supplies | None = None) -> AsyncIterator["Transaction"]:
    """All of it or nothing of it; what is sent is published after the commit.

    `supplies` is what pools have for new VMs; who places none needs none.
    """
    async with store.rows() as rows:
        tx = Transaction(rows, supplies)
        yield tx
        await rows.write(tx.changes)


class Transaction:
    """What was read stays locked until the end, VMs and the nodes of a cluster that room is claimed on."""

    def __init__(self, rows: Rows, supplies: Supplies | None = None) -> None:
        self._supplies = supplies
        self.rows = rows
        """For reading what need not stay as it is."""
        self.changes = Changes()
        self._clusters: Mapping[ClusterName, ClusterSpec] | None = None
        self._nodes: dict[ClusterName, dict[NodeName, NodeRow]] = {}
        self._markets: dict[ClusterName, Market] = {}
        self._members: dict[VmKey, VmRecord] = {}
        self._groups: set[tuple[ClusterName, ResourceName]] = set()
        self._vms: dict[VmKey, VmRecord | None] = {}
        self._was_there: set[VmKey] = set()
        self._last_requests: dict[VmKey, Stamp | None] = {}
        self._generations: list[int] = []

    async def hold(self, keys: Collection[VmKey]) -> None:
        """Lock these VMs, and read them together."""
        missing = [key for key in keys if key not in self._vms]
        if not missing:
            return
        found = await self.rows.lock_vms(missing)
        self._vms |= {key: found.get(key) for key in missing}
        self._was_there |= found.keys()

    async def vm(self, key: VmKey) -> VmRecord | None:
        """One VM."""
        await self.hold([key])
        return self._vms[key]

    async def cluster(self, name: ClusterName) -> ClusterSpec | None:
        """One cluster."""
        if self._clusters is None:
            self._clusters = {spec.name: spec for spec in await self.rows.clusters()}
        return self._clusters.get(name)

    async def nodes(self, cluster: ClusterName) -> Sequence[NodeRow]:
        """The nodes of a cluster, by name; nobody else claims room on them until the end."""
        if cluster not in self._nodes:
            rows = await self.rows.nodes(cluster, lock=True)
            used = self.changes.used
            self._nodes[cluster] = {
                row.spec.name: replace(row, used=row.used + used.get(row.key, Usage())) for row in rows
            }
        return list(self._nodes[cluster].values())

    async def node(self, cluster: ClusterName, name: NodeName) -> NodeSpec | None:
        """One node, as it is now."""
        return next((row.spec for row in await self.rows.nodes(cluster, lock=False) if row.spec.name == name), None)

    async def market(self, cluster: ClusterSpec) -> Market:
        """The same, as placement sees them."""
        if cluster.name not in self._markets:
            rows = await self.nodes(cluster.name)
            self._markets[cluster.name] = Market(map(self._candidate, rows), cluster.placement)
        return self._markets[cluster.name]

    async def members(self, cluster: ClusterName, groups: Collection[ResourceName]) -> Sequence[VmRecord]:
        """The VMs of these groups; none of them comes to another node until the end."""
        missing = {(cluster, group) for group in groups} - self._groups
        if missing:
            # Whoever chooses a node for one of them has to wait for these locks.
            await self.nodes(cluster)
            found = await self.rows.vms_in_groups(cluster, [group for _, group in sorted(missing)])
            self._members |= {record.key: record for record in found}
            self._groups |= missing
        known = {**self._members, **self._vms}
        return [record for record in known.values() if record is not None and _is_member(record, cluster, groups)]

    def tells_nodes_apart(self, node: NodeKey) -> bool:
        """Whether another node may have addresses where this one has none."""
        return self._supplies is not None and self._supplies.of(node) is not None

    async def choose(
        self,
        cluster: ClusterSpec,
        request: VmRequested,
        *,
        node: NodeName | None,
        leaves: NodeName | None = None,
        is_new: bool = False,
        without: VmRecord | None = None,
    ) -> Decision:
        """A node for a VM: only `node`, if given, not the one that it `leaves`, and as if `without` took no room."""
        market = await self.market(cluster) if without is None else await self._market_without(cluster, without)
        members = await self.members(cluster.name, groups_of(request))
        return market.choose(
            wish_of(request, cluster, members, drained=market.drained, node=node, leaves=leaves, is_new=is_new)
        )

    async def _market_without(self, cluster: ClusterSpec, record: VmRecord) -> Market:
        takes = Usage.of(record.request)
        rows = [
            replace(row, used=row.used + -takes) if row.spec.name in record.nodes() else row
            for row in await self.nodes(cluster.name)
        ]
        return Market(map(self._candidate, rows), cluster.placement)

    async def last_request(self, key: VmKey) -> Stamp | None:
        """The last request that was served for a VM that is not there."""
        if key not in self._last_requests:
            absent = [key, *(each for each, record in self._vms.items() if record is None)]
            found = await self.rows.last_requests(absent)
            self._last_requests = {each: found.get(each) for each in absent} | self._last_requests
        return self._last_requests[key]

    async def new_generation(self) -> int:
        """Higher than all before."""
        if not self._generations:
            # As many as this transaction may create, in one question.
            absent = sum(record is None for record in self._vms.values())
            self._generations = list(reversed(await self.rows.new_generations(max(absent, 1))))
        return self._generations.pop()

    def put_vm(self, record: VmRecord) -> None:
        """It is so now. It takes room on the nodes that it has come to, and leaves that on those that it has left."""
        key = record.key
        before = self._vms[key]
        size = Usage.of(record.request)
        there = frozenset() if before is None else before.nodes()
        for node in record.nodes() - there:
            if record.desired is None and self._supplies is not None:
                self._supplies.claim(key, NodeKey(key.cluster, node), Needs.of(record.request))
            self._use(NodeKey(key.cluster, node), size)
        for node in there - record.nodes():
            self._use(NodeKey(key.cluster, node), -size)
        self._vms[key] = record
        self.changes.gone.discard(key)
        (self.changes.vms if key in self._was_there else self.changes.new_vms)[key] = record

    def remove_vm(self, record: VmRecord) -> None:
        """It gives its size back."""
        key = record.key
        self._vms[key] = None
        self.changes.vms.pop(key, None)
        self.changes.new_vms.pop(key, None)
        self.changes.decisions.pop(key, None)
        if key in self._was_there:
            self.changes.gone.add(key)
        for node in record.nodes():
            self._use(NodeKey(key.cluster, node), -Usage.of(record.request))

    def put_decision(self, key: VmKey, decision: PlacementDecision) -> None:
        """Why it goes where it goes, for whoever asks later."""
        self.changes.decisions[key] = decision

    async def left_behind(self, key: VmKey) -> Sequence[LeftBehind]:
        """What lost nodes still have of a VM."""
        kept = {_left_key(left): left for left in await self.rows.left_behind(key)}
        now = {each: left for each, left in self.changes.left_behind.items() if each.vm == key}
        return [left for left in {**kept, **now}.values() if left is not None]

    def put_left_behind(self, left: LeftBehind) -> None:
        """Its node has to let it go when it returns; what is gone is forgotten."""
        self.changes.left_behind[_left_key(left)] = None if left.is_gone else left

    def keep_last_request(self, key: VmKey, asked: Stamp) -> None:
        """Remember it, so that a late repetition is known as one."""
        self._last_requests[key] = asked
        self.changes.last_requests[key] = asked

    def put_cluster(self, spec: ClusterSpec) -> None:
        """Make it so."""
        self.changes.clusters[spec.name] = spec

    def put_node(self, spec: NodeSpec) -> None:
        """Make it so."""
        self.changes.nodes[NodeKey(spec.cluster, spec.name)] = spec

    def remove_node(self, key: NodeKey) -> None:
        """It has no VMs, and nothing is left behind there."""
        self.changes.gone_nodes.add(key)

    def put_heard(self, key: NodeKey, heard: Heard) -> None:
        """What was heard of it."""
        self.changes.heard[key] = heard

    def put_drain(self, key: NodeKey, drain: Drain | None) -> None:
        """What an operator wants of its VMs."""
        self.changes.drains[key] = drain

    def send(self, messages: Iterable[Outgoing]) -> None:
        """Publish these after the commit, in this order."""
        self.changes.messages.extend(messages)

    def _use(self, key: NodeKey, size: Usage) -> None:
        self.changes.used[key] = self.changes.used.get(key, Usage()) + size
        row = self._nodes.get(key.cluster, {}).get(key.node)
        if row is not None:
            row = replace(row, used=row.used + size)
            self._nodes[key.cluster][key.node] = row
            if key.cluster in self._markets:
                self._markets[key.cluster].change(self._candidate(row))

    def _candidate(self, row: NodeRow) -> Candidate:
        supply = None if self._supplies is None else self._supplies.of(row.key)
        return Candidate(row.spec, row.heard.state, row.used, row.drain is not None, supply, row.heard.problem)


def _is_member(record: VmRecord, cluster: ClusterName, groups: Collection[ResourceName]) -> bool:
    return record.cluster == cluster and not groups_of(record.request).isdisjoint(groups)


def _left_key(left: LeftBehind) -> LeftKey:
    return LeftKey(VmKey(left.desired.cluster, left.desired.vm), left.desired.node)
