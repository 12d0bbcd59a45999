"""What an operator names has to be there."""

from collections.abc import Iterable

from vmfabric.contract.cluster import ClusterSpec
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.names import ClusterName
from vmfabric.scheduler.domain.changes import NodeKey
from vmfabric.scheduler.ports import NodeRow
from vmfabric.scheduler.transaction import Transaction


async def the_cluster(tx: Transaction, name: ClusterName) -> ClusterSpec:
    """Refused with the names of those that there are."""
    found = await tx.cluster(name)
    if found is None:
        known = [spec.name for spec in await tx.rows.clusters()]
        there = f"there are: {', '.join(known)}" if known else "there is none yet, cluster.apply makes one"
        raise Refused(Code.UNKNOWN_CLUSTER, f"there is no cluster {name}; {there}")
    return found


async def the_node(tx: Transaction, key: NodeKey) -> tuple[NodeRow, ClusterSpec]:
    """With its cluster, in which nobody else claims room until the end."""
    return await _found(tx, key, await tx.nodes(key.cluster))


async def the_node_as_it_is(tx: Transaction, key: NodeKey) -> tuple[NodeRow, ClusterSpec]:
    """The same for who changes nothing, and keeps nobody from it."""
    return await _found(tx, key, await tx.rows.nodes(key.cluster))


async def _found(tx: Transaction, key: NodeKey, rows: Iterable[NodeRow]) -> tuple[NodeRow, ClusterSpec]:
    row = next((row for row in rows if row.key == key), None)
    # Behind the nodes: a cluster that has nodes changes only with them locked.
    cluster = await the_cluster(tx, key.cluster)
    if row is None:
        raise Refused(Code.UNKNOWN_NODE, f"there is no node {key.node} in cluster {key.cluster}; see node.list")
    return row, cluster
