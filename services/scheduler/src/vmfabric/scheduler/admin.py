"""What operators ask the scheduler."""

from collections.abc import Callable, Iterable
from typing import Any

import structlog

from vmfabric.contract.addresses import Prefix
from vmfabric.contract.admin import (
    Applied,
    ApplyCluster,
    ApplyNode,
    Change,
    Clusters,
    Drain,
    DrainNode,
    DrainState,
    EvacuateNode,
    GetVm,
    List,
    ListOfCluster,
    Nodes,
    NodeState,
    NodeStatus,
    UndrainNode,
    Used,
    Vms,
    VmState,
)
from vmfabric.contract.cluster import ClusterSpec
from vmfabric.contract.envelope import Trace
from vmfabric.contract.errors import Code, Refused
from vmfabric.runtime.clock import Clock
from vmfabric.runtime.desired import put
from vmfabric.runtime.micro import Endpoint
from vmfabric.scheduler.domain import drain as drains
from vmfabric.scheduler.domain import lifecycle
from vmfabric.scheduler.domain.changes import NodeKey
from vmfabric.scheduler.domain.cluster import check_cluster, check_node, compare
from vmfabric.scheduler.domain.record import VmKey, VmRecord
from vmfabric.scheduler.domain.wiring import desired_node
from vmfabric.scheduler.domain.wish import groups_of
from vmfabric.scheduler.named import the_cluster, the_node
from vmfabric.scheduler.ports import NodeRow, Store
from vmfabric.scheduler.transaction import Transaction, transaction

log = structlog.get_logger()


class Administration:
    """The endpoints; each is one transaction."""

    def __init__(self, store: Store, clock: Clock, *, committed: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._committed = committed

    def endpoints(self) -> tuple[Endpoint[Any], ...]:
        """Which request goes to which function."""
        return (
            Endpoint("cluster.apply", ApplyCluster, self.apply_cluster, "make a cluster so"),
            Endpoint("cluster.list", List, self.list_clusters, "all clusters"),
            Endpoint("node.apply", ApplyNode, self.apply_node, "make a node so"),
            Endpoint("node.list", ListOfCluster, self.list_nodes, "nodes, their state and use"),
            Endpoint("node.drain", DrainNode, self.drain_node, "place nothing on a node, and move what can move"),
            Endpoint("node.evacuate", EvacuateNode, self.evacuate_node, "place the VMs of a lost node elsewhere"),
            Endpoint("node.undrain", UndrainNode, self.undrain_node, "place VMs on a node again"),
            Endpoint("vm.get", GetVm, self.get_vm, "one VM and what it waits for"),
            Endpoint("vm.list", ListOfCluster, self.list_vms, "VMs by name"),
        )

    async def apply_cluster(self, asked: ApplyCluster) -> Applied:
        """The nodes of the cluster hear of a change through their desired state."""
        spec = asked.spec
        async with transaction(self._store) as tx:
            rows = await tx.nodes(spec.name)
            found = await tx.cluster(spec.name)
            nodes = [(row.spec, (row.spec.address, *row.heard.addresses)) for row in rows]
            check_cluster(spec, found, nodes, sum(row.used.vms for row in rows))
            applied = compare("cluster", spec, found, spec.name, dry_run=asked.dry_run)
            if not asked.dry_run and found != spec:
                tx.put_cluster(spec)
                before = {row.key: desired_node(found, row.spec, row.drain) for row in rows} if found else {}
                wanted = {row.key: desired_node(spec, row.spec, row.drain) for row in rows}
                tx.send(put(value) for key, value in wanted.items() if value != before.get(key))
        self._committed()
        return applied

    async def list_clusters(self, _asked: List) -> Clusters:
        """Passwords are left out."""
        async with transaction(self._store) as tx:
            specs = await tx.rows.clusters()
        return Clusters(clusters=tuple(map(_without_password, specs)))

    async def apply_node(self, asked: ApplyNode) -> Applied:
        """A node takes VMs once its agent is heard."""
        spec = asked.spec
        async with transaction(self._store) as tx:
            rows = await tx.nodes(spec.cluster)
            cluster = await tx.cluster(spec.cluster)
            row = next((row for row in rows if row.spec.name == spec.name), None)
            found = row.spec if row else None
            check_node(
                spec,
                found=found,
                cluster=cluster,
                others=[row.spec for row in rows],
                heard=row.heard.addresses if row else (),
                vms=row.used.vms if row else 0,
                delegated=_delegated(await tx.rows.vms_on(row.key)) if row else (),
                holder=await tx.rows.vm_with(spec.address),
            )
            applied = compare("node", spec, found, spec.name, dry_run=asked.dry_run)
            if not asked.dry_run and found != spec and cluster is not None:
                tx.put_node(spec)
                drain = row.drain if row else None
                before = desired_node(cluster, found, drain) if found else None
                wanted = desired_node(cluster, spec, drain)
                tx.send([put(wanted)] if wanted != before else [])
        self._committed()
        return applied

    async def drain_node(self, asked: DrainNode) -> Drain:
        """It goes on by itself, and says how far it is. Asked again, it goes on as asked last."""
        async with transaction(self._store) as tx:
            row, cluster = await the_node(tx, NodeKey(asked.cluster, asked.node))
            before = row.drain
            wanted = drains.Drain(
                since=before.since if before else self._clock.now(),
                trace_id=before.trace_id if before else Trace.new().trace_id,
                going_down=asked.going_down,
                parallel=asked.parallel,
                fence=before.fence if before else None,
                said=before.said if before else None,
            )
            found = await self._look(tx, row, cluster, wanted)
            is_same = before is not None and before.model_copy(update={"drained": False}) == wanted
            change = Change.UNCHANGED if is_same else Change.CHANGED
            if not asked.dry_run and not is_same:
                self._put_drain(tx, row, cluster, wanted)
        self._committed()
        return Drain(
            cluster=asked.cluster,
            node=asked.node,
            change=change,
            dry_run=asked.dry_run,
            vms=found.left,
            staying=found.staying,
        )

    async def evacuate_node(self, asked: EvacuateNode) -> Drain:
        """Only of a node that is lost; one that is heard is drained."""
        async with transaction(self._store) as tx:
            row, cluster = await the_node(tx, NodeKey(asked.cluster, asked.node))
            if row.heard.state is not NodeState.LOST:
                raise Refused(
                    Code.CONFLICT,
                    f"node {asked.node} is {row.heard.state}, not lost: node.drain moves its VMs while it runs, and "
                    "nobody may run them twice",
                )
            is_same = row.drain is not None and row.drain.fence == asked.fence
            wanted = drains.evacuation(asked.fence, row.drain, Trace.new().trace_id, self._clock.now())
            found = await self._look(tx, row, cluster, wanted)
            if not asked.dry_run and not is_same:
                log.warning("node.evacuating", **row.key._asdict(), fence=asked.fence, trace_id=wanted.trace_id)
                self._put_drain(tx, row, cluster, wanted)
        self._committed()
        return Drain(
            cluster=asked.cluster,
            node=asked.node,
            change=Change.UNCHANGED if is_same else Change.CHANGED,
            dry_run=asked.dry_run,
            vms=found.left,
            staying=found.staying,
        )

    async def undrain_node(self, asked: UndrainNode) -> Drain:
        """Placement may choose it again."""
        async with transaction(self._store) as tx:
            row, cluster = await the_node(tx, NodeKey(asked.cluster, asked.node))
            change = Change.UNCHANGED if row.drain is None else Change.CHANGED
            if not asked.dry_run and row.drain is not None:
                self._put_drain(tx, row, cluster, None)
        self._committed()
        return Drain(cluster=asked.cluster, node=asked.node, change=change, dry_run=asked.dry_run, vms=row.used.vms)

    def _put_drain(self, tx: Transaction, row: NodeRow, cluster: ClusterSpec, wanted: drains.Drain | None) -> None:
        tx.put_drain(row.key, wanted)
        before, now = desired_node(cluster, row.spec, row.drain), desired_node(cluster, row.spec, wanted)
        tx.send([put(now)] if now != before else [])

    async def _look(
        self, tx: Transaction, row: NodeRow, cluster: ClusterSpec, wanted: drains.Drain
    ) -> drains.Progress:
        records = await tx.rows.vms_on(row.key)
        found = drains.look(
            row.key.node,
            records,
            drain=wanted,
            is_lost=row.heard.state is NodeState.LOST,
            asked={},
            now=self._clock.now(),
            cluster=cluster,
            market=await tx.market(cluster),
            members=await tx.members(cluster.name, groups_of(*(record.request for record in records))),
        )
        return found.progress

    async def list_nodes(self, asked: ListOfCluster) -> Nodes:
        """In the order of their names."""
        async with transaction(self._store) as tx:
            if asked.cluster is not None:
                await the_cluster(tx, asked.cluster)
            rows = await tx.rows.nodes(asked.cluster)
        return Nodes(nodes=tuple(_status(row) for row in rows if row.spec.name > asked.after)[: asked.limit])

    async def get_vm(self, asked: GetVm) -> VmState:
        """Refused when there is none."""
        key = VmKey(asked.cluster, asked.vm)
        async with transaction(self._store) as tx:
            record = await tx.rows.vm(key)
            decision = await tx.rows.decision(key)
            if record is None:
                await the_cluster(tx, asked.cluster)
                raise Refused(Code.UNKNOWN_VM, f"there is no VM {asked.vm} in cluster {asked.cluster}; see vm.list")
        return _state(record).model_copy(update={"decision": decision})

    async def list_vms(self, asked: ListOfCluster) -> Vms:
        """A page; `next` asks for the one behind it."""
        cluster, _, name = asked.after.partition("/")
        async with transaction(self._store) as tx:
            if asked.cluster is not None:
                await the_cluster(tx, asked.cluster)
            records = await tx.rows.vms(asked.cluster, (cluster, name), asked.limit)
        is_full = len(records) == asked.limit
        following = f"{records[-1].cluster}/{records[-1].vm}" if is_full else None
        return Vms(vms=tuple(map(_state, records)), next=following)


def _status(row: NodeRow) -> NodeStatus:
    used = Used(cpu=row.used.cpu, memory_mb=row.used.memory_mb, disk_gb=row.used.disk_gb)
    return NodeStatus(
        spec=row.spec,
        state=row.heard.state,
        heard_at=row.heard.at,
        problem=row.heard.problem,
        drain=_drain(row.drain) if row.drain else None,
        used=used,
        vms=row.used.vms,
    )


def _without_password(spec: ClusterSpec) -> ClusterSpec:
    if spec.bgp is None:
        return spec
    return spec.model_copy(update={"bgp": spec.bgp.model_copy(update={"password": None})})


def _drain(wanted: drains.Drain) -> DrainState:
    return DrainState(
        since=wanted.since,
        going_down=wanted.going_down,
        parallel=wanted.parallel,
        fence=wanted.fence,
        drained=wanted.drained,
    )


def _state(record: VmRecord) -> VmState:
    return VmState(
        cluster=record.cluster,
        vm=record.vm,
        node=record.node,
        generation=record.generation,
        phase=record.phase,
        size=record.request.size,
        mac=record.mac,
        addresses=record.addresses,
        other_node=next(iter(record.nodes() - {record.node}), None),
        waiting_for=lifecycle.waits_for(record),
        since=record.waiting.since,
    )


def _delegated(records: Iterable[VmRecord]) -> list[Prefix]:
    given = (allocated.prefix for record in records for allocated in record.addresses)
    return [prefix for prefix in given if prefix is not None]
