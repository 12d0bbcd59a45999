"""`node.delete`: a node that does not come back."""

from collections.abc import Callable, Sequence

import structlog

from vmfabric.contract.admin import Applied, Change, DeleteNode
from vmfabric.contract.desired import NODE_KEY
from vmfabric.contract.errors import Code, TryAgain
from vmfabric.runtime.desired import purge
from vmfabric.scheduler.domain.changes import NodeKey
from vmfabric.scheduler.domain.deletion import check_deletable
from vmfabric.scheduler.domain.record import VmKey
from vmfabric.scheduler.handlers import Handlers
from vmfabric.scheduler.named import the_cluster
from vmfabric.scheduler.ports import Store
from vmfabric.scheduler.strays import Strays
from vmfabric.scheduler.transaction import Transaction, transaction

log = structlog.get_logger()


class Deleting:
    """One transaction, in which nobody can place a VM on the node."""

    def __init__(self, store: Store, handlers: Handlers, strays: Strays, *, committed: Callable[[], None]) -> None:
        self._store = store
        self._handlers = handlers
        self._strays = strays
        self._committed = committed

    async def delete_node(self, asked: DeleteNode) -> Applied:
        """Refused with what is in the way. One that is not there is deleted already."""
        key = NodeKey(asked.cluster, asked.node)
        strays = [value.vm for value in await self._strays.on(key)]
        async with transaction(self._store) as tx:
            # In the order in which everybody locks: VMs before nodes.
            held = await _left_on(tx, key)
            await tx.hold(held)
            row = next((row for row in await tx.nodes(key.cluster) if row.key == key), None)
            await the_cluster(tx, key.cluster)
            if row is not None:
                left = await _left_on(tx, key)
                if not set(left) <= set(held):
                    raise TryAgain(Code.CONFLICT, f"node {key.node} is just being evacuated; ask again")
                check_deletable(
                    key.node,
                    row.heard.state,
                    vms=[record.vm for record in await tx.rows.vms_on(key)],
                    strays=strays,
                    left=[vm.vm for vm in left],
                    is_gone=asked.gone,
                )
                if not asked.dry_run:
                    await self._delete(tx, key, left)
        self._committed()
        change = Change.UNCHANGED if row is None else Change.DELETED
        return Applied(kind="node", name=key.node, change=change, dry_run=asked.dry_run)

    async def _delete(self, tx: Transaction, key: NodeKey, left: Sequence[VmKey]) -> None:
        for vm in left:
            await self._handlers.forget(tx, vm, key.node)
        tx.remove_node(key)
        tx.send([purge(NODE_KEY.render(key._asdict()))])
        log.warning("node.deleted", **key._asdict(), left=[vm.vm for vm in left])


async def _left_on(tx: Transaction, node: NodeKey) -> list[VmKey]:
    """VMs that it has not let go."""
    values = [it.desired for it in await tx.rows.left_behind()]
    return [VmKey(it.cluster, it.vm) for it in values if NodeKey(it.cluster, it.node) == node]
