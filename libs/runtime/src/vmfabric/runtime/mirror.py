"""A node's copy of its desired state: read whole at start and after each reconnect, then watched.

When the bucket cannot be read at the start, it is what the last life has kept: but the bucket is given some time
first, so that a node which returns does not announce for a moment what is no longer its own.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from pydantic import ValidationError

from vmfabric.contract.desired import (
    BUCKET,
    NODE_KEY,
    POOLS_KEY,
    VM_KEY,
    DesiredNode,
    DesiredPools,
    DesiredVm,
    node_from_bytes,
)
from vmfabric.contract.names import VmName
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.desired import KEY_SUBJECT, Revised
from vmfabric.runtime.snapshot import SavedNode, SavedPools, SavedVm, Snapshot, load, save

_CHECK_SECONDS = 1.0
_HEARTBEAT_SECONDS = 2.0
_DEAF_SECONDS = 5.0
"""Without a heartbeat: the server that had the consumer is gone, or somebody has deleted the bucket."""
_REREAD_SECONDS = 60.0
_SAVE_SECONDS = 0.2
_SAVE_AGAIN_SECONDS = 5.0
_STREAM = f"KV_{BUCKET}"

log = structlog.get_logger()


class Mirror:
    """The desired state of one node.

    A key that vanishes from the bucket is forgotten only after its value said `absent`: losing the bucket must not
    look like an order to remove everything.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        cluster: str,
        node: str,
        snapshot: Path,
        on_change: Callable[[VmName | None], None],
        bucket_seconds: float,
    ) -> None:
        """`bucket_seconds`: how long the bucket is waited for before the snapshot is believed."""
        self._bus = bus
        self._bucket_seconds = bucket_seconds
        self._snapshot = snapshot
        self._on_change = on_change
        self._node_key = NODE_KEY.render({"cluster": cluster, "node": node})
        self._pools_key = POOLS_KEY.render({"cluster": cluster})
        self._vm_keys = VM_KEY.pattern({"cluster": cluster, "node": node})
        self._vms: dict[VmName, Revised[DesiredVm]] = {}
        self._node: Revised[DesiredNode] | None = None
        self._pools: Revised[DesiredPools] | None = None
        self._remembered: set[VmName] = set()
        self._complete = False
        self._has_snapshot = False
        self._unsaved = asyncio.Event()
        self._again = asyncio.Event()
        self._watched: Subscription | None = None
        self._heard_at = 0.0
        self._restore()

    @property
    def complete(self) -> bool:
        """Whether all of it has been read once, from the bucket or from the snapshot."""
        return self._complete

    @property
    def vms(self) -> Mapping[VmName, Revised[DesiredVm]]:
        """Every VM of which something is wanted here, absence too."""
        return self._vms

    @property
    def remembered(self) -> Collection[VmName]:
        """VMs of the snapshot of which the bucket has said nothing since the start."""
        return self._remembered

    @property
    def node(self) -> Revised[DesiredNode] | None:
        """The node's own values."""
        return self._node

    @property
    def pools(self) -> Revised[DesiredPools] | None:
        """The blocks of the cluster's pools."""
        return self._pools

    def save(self) -> None:
        """Keep what is known in the snapshot now, not a moment later: after a crash nothing older is acted upon."""
        if self._unsaved.is_set():
            self._save()

    async def run(self) -> None:
        """Follow the bucket until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._save_changes())
            group.create_task(self._believe_snapshot())
            await self._bus.connected()
            self._bus.on_reconnect(self._again.set)
            try:
                while True:
                    self._again.clear()
                    await self._read_whole()
                    await self._until_lost()
            finally:
                await self._unwatch()

    def _restore(self) -> None:
        saved = load(self._snapshot, Snapshot)
        if saved is None:
            return
        self._vms = {name: Revised(entry.revision, entry.value) for name, entry in saved.vms.items()}
        self._remembered = set(self._vms)
        self._node = Revised(saved.node.revision, saved.node.value) if saved.node else None
        self._pools = Revised(saved.pools.revision, saved.pools.value) if saved.pools else None
        self._has_snapshot = True

    async def _believe_snapshot(self) -> None:
        await asyncio.sleep(self._bucket_seconds)
        if self._has_snapshot and not self._complete:
            log.warning("desired.from_snapshot", vms=len(self._vms), waited_s=self._bucket_seconds)
            self._whole()

    async def _read_whole(self) -> None:
        await self._unwatch()
        inbox = self._bus.client.new_inbox()
        config = ConsumerConfig(
            deliver_subject=inbox,
            deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
            ack_policy=AckPolicy.NONE,
            filter_subjects=[KEY_SUBJECT + key for key in (self._node_key, self._pools_key, self._vm_keys)],
            inactive_threshold=30,
            mem_storage=True,
            idle_heartbeat=_HEARTBEAT_SECONDS,
        )
        self._heard_at = asyncio.get_running_loop().time()
        try:
            self._watched = await self._bus.client.subscribe(inbox, cb=self._received)
            info = await self._bus.jetstream.add_consumer(_STREAM, config=config)
        except nats.js.errors.NotFoundError:
            await self._unwatch()
            await self._make_bucket()
            return
        except (nats.errors.Error, TimeoutError, OSError) as error:
            log.warning("desired.not_read", error=repr(error))
            await self._unwatch()
            return
        if not info.num_pending and not (info.delivered and info.delivered.consumer_seq):
            self._whole()

    async def _until_lost(self) -> None:
        """Returns when everything has to be read again."""
        loop = asyncio.get_running_loop()
        reread_at = loop.time() + _REREAD_SECONDS
        while True:
            try:
                async with asyncio.timeout(_CHECK_SECONDS):
                    await self._again.wait()
            except TimeoutError:
                now = loop.time()
            else:
                return
            if self._watched is None or now >= reread_at:
                return
            if now - self._heard_at > _DEAF_SECONDS:
                log.warning("desired.deaf", seconds=round(now - self._heard_at, 1))
                return

    async def _make_bucket(self) -> None:
        try:
            await self._bus.ensure_streams()
        except (nats.errors.Error, TimeoutError, OSError) as error:
            log.warning("desired.no_bucket", error=repr(error))

    async def _unwatch(self) -> None:
        subscription, self._watched = self._watched, None
        if subscription is None:
            return
        try:
            # The server drops the consumer by itself when nobody listens.
            await subscription.unsubscribe()
        except nats.errors.Error as error:
            log.debug("desired.not_unsubscribed", error=repr(error))

    async def _received(self, message: Msg) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        if message.headers and "Status" in message.headers:
            return
        key = message.subject.removeprefix(KEY_SUBJECT)
        metadata = message.metadata
        gone = bool(message.headers) and "KV-Operation" in (message.headers or {})
        try:
            if gone:
                self._forget(key)
            else:
                self._take(key, metadata.sequence.stream, message.data)
        except ValidationError as error:
            log.error("desired.unreadable", key=key, error=str(error))  # noqa: TRY400
        if not metadata.num_pending:
            self._whole()

    def _take(self, key: str, revision: int, data: bytes) -> None:
        if key == self._node_key:
            node = Revised(revision, node_from_bytes(data))
            changed = self._node is None or self._node.value != node.value
            self._node = node
            if changed:
                self._touched(None)
        elif key == self._pools_key:
            pools = Revised(revision, DesiredPools.from_bytes(data))
            changed = self._pools is None or self._pools.value != pools.value
            self._pools = pools
            if changed:
                self._touched(None)
        else:
            vm = Revised(revision, DesiredVm.from_bytes(data))
            known = self._vms.get(vm.value.vm)
            # The fence: a value that a delayed writer brings late must not undo a newer placement.
            if known is not None and known.value.generation > vm.value.generation:
                return
            if known == vm and vm.value.vm not in self._remembered:
                return
            self._remembered.discard(vm.value.vm)
            self._vms[vm.value.vm] = vm
            self._touched(vm.value.vm)

    def _forget(self, key: str) -> None:
        vm = key.rsplit(".", 1)[-1]
        known = self._vms.get(vm)
        if known is None or not key.startswith("vm."):
            return
        if known.value.presence != "absent":
            log.warning("desired.key_gone", vm=vm, kept_generation=known.value.generation)
            return
        del self._vms[vm]
        self._remembered.discard(vm)
        self._touched(vm)

    def _whole(self) -> None:
        if not self._complete:
            self._complete = True
            self._touched(None)

    def _touched(self, vm: VmName | None) -> None:
        self._unsaved.set()
        self._on_change(vm)

    async def _save_changes(self) -> None:
        try:
            while True:
                await self._unsaved.wait()
                is_saved = self._save()
                await asyncio.sleep(_SAVE_SECONDS if is_saved else _SAVE_AGAIN_SECONDS)
        finally:
            self.save()

    def _save(self) -> bool:
        self._unsaved.clear()
        if not self._complete:
            return True
        known = Snapshot(
            vms={name: SavedVm(revision=it.revision, value=it.value) for name, it in self._vms.items()},
            node=SavedNode(revision=self._node.revision, value=self._node.value) if self._node else None,
            pools=SavedPools(revision=self._pools.revision, value=self._pools.value) if self._pools else None,
        )
        if save(self._snapshot, known):
            return True
        self._unsaved.set()
        return False
