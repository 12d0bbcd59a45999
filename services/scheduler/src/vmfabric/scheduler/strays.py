"""VMs that a node should have by the bucket, and the scheduler does not know: found, and removed with a word."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import structlog

from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.suspicion import is_suspicious
from vmfabric.runtime.desired import put, vms_in
from vmfabric.scheduler.desk import Desk
from vmfabric.scheduler.domain.changes import NodeKey
from vmfabric.scheduler.domain.record import LeftBehind, VmKey
from vmfabric.scheduler.ports import Store
from vmfabric.scheduler.transaction import Transaction, transaction

ReadBucket = Callable[[NodeKey], Awaitable[Mapping[str, bytes]]]
"""The desired state of all VMs of a node."""

log = structlog.get_logger()


class Strays:
    """A stray is only ever removed when an operator says so: it may be a database that was set back that is wrong."""

    def __init__(self, store: Store, desk: Desk, read_bucket: ReadBucket) -> None:
        self._store = store
        self._desk = desk
        self._read_bucket = read_bucket

    async def on(self, node: NodeKey) -> list[DesiredVm]:
        """Those of a node."""
        # In this order: what the bucket has was in the database before.
        bucket = vms_in(await self._read_bucket(node))
        async with transaction(self._store) as tx:
            return [it for it in bucket if it.presence is not Presence.ABSENT and not await _is_known(tx, it)]

    async def remove(self, strays: Sequence[DesiredVm], *, of: int) -> None:
        """Have the node let go of them, as it does of what a lost node has kept. `of`: VMs that should be there."""
        if is_suspicious(len(strays), of=of):
            raise Refused(
                Code.CONFLICT,
                f"{len(strays)} VMs would be removed from the node, which should have {of}: that looks like a "
                "database that was set back. Nothing was changed: restore a newer one",
            )
        for value in strays:
            await self._desk.do(VmKey(value.cluster, value.vm), partial(_remove, value))


async def _is_known(tx: Transaction, value: DesiredVm) -> bool:
    key = VmKey(value.cluster, value.vm)
    record = await tx.vm(key)
    mine = (*(record.all_desired() if record else ()), *(left.desired for left in await tx.left_behind(key)))
    return value.key() in {it.key() for it in mine}


async def _remove(value: DesiredVm, tx: Transaction) -> None:
    if await _is_known(tx, value):
        return
    # The database may have handed out less than what the node has.
    await tx.rows.raise_generation(value.generation)
    generation = await tx.new_generation()
    absent = value.model_copy(update={"presence": Presence.ABSENT, "toward": (), "generation": generation})
    tx.put_left_behind(LeftBehind(desired=absent))
    tx.send([put(absent)])
    log.warning("stray.removed", cluster=value.cluster, vm=value.vm, node=value.node, generation=value.generation)
