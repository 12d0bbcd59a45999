"""What operators ask the scheduler."""

from collections.abc import Callable
from typing import Any

from vmfabric.contract.admin import (
    Applied,
    ApplyCluster,
    ApplyNode,
    Clusters,
    GetVm,
    List,
    ListOfCluster,
    Nodes,
    NodeStatus,
    Used,
    Vms,
    VmState,
)
from vmfabric.contract.errors import Code, Refused
from vmfabric.runtime.desired import put
from vmfabric.runtime.micro import Endpoint
from vmfabric.scheduler.domain import lifecycle
from vmfabric.scheduler.domain.cluster import check_cluster, check_node, compare, desired_node
from vmfabric.scheduler.domain.record import VmKey, VmRecord
from vmfabric.scheduler.ports import NodeRow, Store
from vmfabric.scheduler.transaction import transaction


class Administration:
    """The endpoints; each is one transaction."""

    def __init__(self, store: Store, *, committed: Callable[[], None]) -> None:
        self._store = store
        self._committed = committed

    def endpoints(self) -> tuple[Endpoint[Any], ...]:
        """Which request goes to which function."""
        return (
            Endpoint("cluster.apply", ApplyCluster, self.apply_cluster, "make a cluster so"),
            Endpoint("cluster.list", List, self.list_clusters, "all clusters"),
            Endpoint("node.apply", ApplyNode, self.apply_node, "make a node so"),
            Endpoint("node.list", ListOfCluster, self.list_nodes, "nodes, their state and use"),
            Endpoint("vm.get", GetVm, self.get_vm, "one VM and what it waits for"),
            Endpoint("vm.list", ListOfCluster, self.list_vms, "VMs by name"),
        )

    async def apply_cluster(self, asked: ApplyCluster) -> Applied:
        """The nodes of the cluster hear of a change through their desired state."""
        spec = asked.spec
        async with transaction(self._store) as tx:
            rows = await tx.nodes(spec.name)
            found = await tx.cluster(spec.name)
            addresses = {row.spec.name: (row.spec.address, *row.heard.addresses) for row in rows}
            check_cluster(spec, found, addresses, sum(row.used.vms for row in rows))
            applied = compare("cluster", spec, found, spec.name, dry_run=asked.dry_run)
            if not asked.dry_run and found != spec:
                tx.put_cluster(spec)
                before = {row.key: desired_node(found, row.spec) for row in rows} if found else {}
                wanted = {row.key: desired_node(spec, row.spec) for row in rows}
                tx.send(put(value) for key, value in wanted.items() if value != before.get(key))
        self._committed()
        return applied

    async def list_clusters(self, _asked: List) -> Clusters:
        """Passwords are left out."""
        async with transaction(self._store) as tx:
            specs = await tx.rows.clusters()
        shown = [spec.model_copy(update={"bgp": spec.bgp.model_copy(update={"password": None})}) for spec in specs]
        return Clusters(clusters=tuple(shown))

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
                holder=await tx.rows.vm_with(spec.address),
            )
            applied = compare("node", spec, found, spec.name, dry_run=asked.dry_run)
            if not asked.dry_run and found != spec and cluster is not None:
                tx.put_node(spec)
                before = desired_node(cluster, found) if found else None
                wanted = desired_node(cluster, spec)
                tx.send([put(wanted)] if wanted != before else [])
        self._committed()
        return applied

    async def list_nodes(self, asked: ListOfCluster) -> Nodes:
        """In the order of their names."""
        async with transaction(self._store) as tx:
            rows = await tx.rows.nodes(asked.cluster)
        return Nodes(nodes=tuple(_status(row) for row in rows if row.spec.name > asked.after)[: asked.limit])

    async def get_vm(self, asked: GetVm) -> VmState:
        """Refused when there is none."""
        async with transaction(self._store) as tx:
            record = await tx.rows.vm(VmKey(asked.cluster, asked.vm))
        if record is None:
            raise Refused(Code.UNKNOWN_VM, f"there is no VM {asked.vm} in cluster {asked.cluster}; see vm.list")
        return _state(record)

    async def list_vms(self, asked: ListOfCluster) -> Vms:
        """A page; `next` asks for the one behind it."""
        cluster, _, name = asked.after.partition("/")
        async with transaction(self._store) as tx:
            records = await tx.rows.vms(asked.cluster, (cluster, name), asked.limit)
        is_full = len(records) == asked.limit
        following = f"{records[-1].cluster}/{records[-1].vm}" if is_full else None
        return Vms(vms=tuple(map(_state, records)), next=following)


def _status(row: NodeRow) -> NodeStatus:
    used = Used(cpu=row.used.cpu, memory_mb=row.used.memory_mb, disk_gb=row.used.disk_gb)
    return NodeStatus(spec=row.spec, state=row.heard.state, heard_at=row.heard.at, used=used, vms=row.used.vms)


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
