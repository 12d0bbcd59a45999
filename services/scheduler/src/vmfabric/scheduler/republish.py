"""Desired state again from Postgres: the bucket may have lost what it had, or have back what it had lost."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import structlog

from vmfabric.contract.desired import HANDED_OUT_KEY, VM_KEY, DesiredNode, DesiredVm, HandedOut, Presence
from vmfabric.runtime.desired import KEY_SUBJECT, put, vms_in
from vmfabric.scheduler.domain.record import VmKey
from vmfabric.scheduler.domain.wiring import desired_node
from vmfabric.scheduler.ports import Rows, Store
from vmfabric.scheduler.transaction import transaction

_PAGE = 500
EVERY_SECONDS = 60.0

log = structlog.get_logger()

ReadBucket = Callable[[], Awaitable[Mapping[str, bytes]]]


@dataclass(frozen=True, slots=True)
class Found:
    """The bucket beside the database, and what was on its way from one to the other meanwhile."""

    vms: Mapping[str, DesiredVm]
    on_the_way: Collection[str]
    bucket: Mapping[str, bytes]

    def lacks(self, value: DesiredVm | DesiredNode) -> bool:
        """Whether the bucket has not got this value, and will not get it by itself."""
        key = value.key()
        return KEY_SUBJECT + key not in self.on_the_way and self.bucket.get(key) != value.to_bytes()

    def newer(self) -> set[VmKey]:
        """VMs of which a node was told more than the database knows."""
        known = _highest(self.vms.values())
        told = _highest(it for it in vms_in(self.bucket) if it.presence is not Presence.ABSENT)
        return {vm for vm, generation in told.items() if vm in known and generation > known[vm]}

    def strays(self) -> list[str]:
        """Keys of VMs that are not in the database."""
        return sorted(
            key
            for key in self.bucket.keys() - self.vms.keys()
            if key.startswith(f"{VM_KEY.stem}.") and KEY_SUBJECT + key not in self.on_the_way
        )


class Republish:
    """Puts every key that the bucket lacks or has otherwise; at start, after a reconnect, and every minute.

    A VM of the bucket that Postgres does not know is reported and left: a database that was set back
    to an older state must not take VMs down.
    """

    def __init__(self, store: Store, read_bucket: ReadBucket, *, committed: Callable[[], None]) -> None:
        self._store = store
        self._read_bucket = read_bucket
        self._committed = committed

    async def once(self) -> int:
        """How many keys were put."""
        found = await self._look()
        put_nodes = await self._put_nodes(found)
        # To put an older value of such a VM would have two nodes announce it.
        newer = found.newer()
        lacking = [value for value in found.vms.values() if found.lacks(value) and _vm(value) not in newer]
        put_vms = [await self._put_vm(value) for value in lacking]
        if put_nodes or any(put_vms):
            log.info("republish.put", nodes=put_nodes, vms=sum(put_vms))
        if newer:
            log.warning("republish.newer_in_bucket", count=len(newer), first=sorted(newer)[:10])
        if strays := found.strays():
            log.warning("republish.strays", count=len(strays), first=strays[:10])
        return put_nodes + sum(put_vms)

    async def _look(self) -> Found:
        # In this order: what is in the database is in the outbox too, or has reached the bucket before we read it.
        async with transaction(self._store) as tx:
            vms = await _wanted_vms(tx.rows)
        async with transaction(self._store) as tx:
            on_the_way = await tx.rows.waiting_subjects()
        return Found(vms, on_the_way, await self._read_bucket())

    async def _put_nodes(self, found: Found) -> int:
        async with transaction(self._store) as tx:
            rows = await tx.rows.nodes(lock=True)
            # Behind the nodes: a cluster that has nodes changes only with them locked.
            clusters = {spec.name: spec for spec in await tx.rows.clusters()}
            lacking = [
                value
                for row in rows
                if found.lacks(value := desired_node(clusters[row.spec.cluster], row.spec, row.drain))
            ]
            tx.send(map(put, lacking))
            generation = await tx.rows.last_generation()
            if lacking and generation and HANDED_OUT_KEY.stem not in found.bucket:
                tx.send([put(HandedOut(generation=generation))])
        self._committed()
        return len(lacking)

    async def _put_vm(self, value: DesiredVm) -> bool:
        async with transaction(self._store) as tx:
            record = await tx.vm(VmKey(value.cluster, value.vm))
            # Locked now: a change that was made meanwhile has its own message, and none can come in between.
            is_so = value in (record.all_desired() if record else ())
            is_so = is_so or value in [left.desired for left in await tx.left_behind(VmKey(value.cluster, value.vm))]
            tx.send([put(value)] if is_so else [])
        self._committed()
        return is_so


def _highest(values: Iterable[DesiredVm]) -> dict[VmKey, int]:
    found: dict[VmKey, int] = {}
    for value in values:
        found[_vm(value)] = max(value.generation, found.get(_vm(value), 0))
    return found


def _vm(value: DesiredVm) -> VmKey:
    return VmKey(value.cluster, value.vm)


async def _wanted_vms(rows: Rows) -> dict[str, DesiredVm]:
    # Where a VM has come back to a node that was lost, what it has there now is wanted.
    found = {left.desired.key(): left.desired for left in await rows.left_behind()}
    after = ("", "")
    while records := await rows.vms(None, after, _PAGE):
        found |= {value.key(): value for record in records for value in record.all_desired()}
        after = records[-1].key
    return found
