"""The lab's stand-in for a hypervisor: one process for each node, which knows nothing but events.

It starts a guest when the node's agent says `iface.ready`, says `guest.running`, and stops the guest when the
interface or the VM is gone. When a VM is migrating, the target makes the guest ready, has the source let go of its
own, says `guest.running`, and has the guest announce itself. In its place would stand libvirt or LXD.
"""

from functools import partial
from pathlib import Path

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from vmfabric.contract.envelope import Trace
from vmfabric.contract.errors import Code, TryAgain
from vmfabric.contract.guest import GuestRunning
from vmfabric.contract.iface import IfaceDrifted, IfaceReady, IfaceRemoved
from vmfabric.contract.streams import FACT_STREAM
from vmfabric.contract.vm import VmDeleted, VmMigrating
from vmfabric.lab import guests, release
from vmfabric.lab.errors import LabError
from vmfabric.lab.guests import Guest, Move, Records
from vmfabric.lab.relay import Relay
from vmfabric.runtime.consumer import Consumer
from vmfabric.runtime.message import Message, Publisher, Route
from vmfabric.runtime.service import Service, run
from vmfabric.runtime.settings import NodeSettings

_RELEASE_SECONDS = 3.0

log = structlog.get_logger()


class HypervisorSettings(NodeSettings):
    """Settings of the lab's hypervisor."""

    guest_prefix: str
    """Guests' namespaces begin with it."""


class Hypervisor:
    """The guests of one node."""

    def __init__(self, node: str, prefix: str, records: Records, bus: Publisher, client: Client) -> None:
        self._node = node
        self._prefix = prefix
        self._records = records
        self._bus = bus
        self._client = client
        self._relays: dict[Guest, Relay] = {}
        self._told: set[Guest] = set()
        """Guests of which this process has said that they run."""

    async def restore(self) -> None:
        """Run every guest that ran before this process was started."""
        for given in list(self._records.all()):
            try:
                await self._run(given, Trace.new())
            except (LabError, OSError, TryAgain) as error:
                # The other guests come first; drift or removal of this one's interface is told by an event.
                log.warning("guest.not_restored", vm=given.vm, reason=str(error))

    async def vm_migrating(self, message: Message[VmMigrating]) -> None:
        """A guest will leave this node, or come to it."""
        if self._node in {message.event.source, message.event.target}:
            self._records.put_move(self._guest(message.event.cluster, message.event.vm), Move(event=message.event))

    async def release(self, asked: Msg) -> None:
        """The target is ready: let go of the guest at once. An answer says that it does not run here any more."""
        cluster, vm, generation = release.read(asked.subject)
        guest = self._guest(cluster, vm)
        move = self._records.move(guest)
        if move is None or move.event.generation != generation:
            log.warning("guest.not_released", vm=vm, reason="no such migration is known here")
            return
        self._records.put_move(guest, move.model_copy(update={"released": True}))
        guests.unplug(guest)
        await asked.respond(b"")
        self._remove(guest)
        log.info("guest.released", vm=vm, target=move.event.target)

    async def iface_ready(self, message: Message[IfaceReady]) -> None:
        """Run the guest with the network that the event describes, unless it has left for another node."""
        given = message.event
        move = self._records.move(self._guest(given.cluster, given.vm))
        if move is not None and move.released and given.generation < move.event.generation:
            log.info("guest.not_started", vm=given.vm, reason=f"it has moved to {move.event.target}")
            return
        await self._run(given, message.trace)

    async def iface_drifted(self, message: Message[IfaceDrifted]) -> None:
        """An interface may have been made anew: plug the guest in again."""
        for vm in message.event.vms:
            given = self._records.get(self._guest(message.event.cluster, vm))
            if given is not None:
                await self._run(given, message.trace)

    async def iface_removed(self, message: Message[IfaceRemoved]) -> None:
        """Stop the guest."""
        self._stop(message.event.cluster, message.event.vm, message.event.generation)

    async def vm_deleted(self, message: Message[VmDeleted]) -> None:
        """Stop the guest, should it have been left."""
        if message.event.generation is not None:
            self._stop(message.event.cluster, message.event.vm, message.event.generation)

    async def _run(self, given: IfaceReady, trace: Trace) -> None:
        guest = self._guest(given.cluster, given.vm)
        before = self._records.get(guest)
        if before is not None and before.generation > given.generation:
            return
        if before is not None and before.guest != given.guest:
            self._remove(guest)
        if guests.has_interface(guest):
            self._records.put(guest, given)
        elif _is_there(given.guest_interface or given.interface):
            self._records.put(guest, given)
            guests.create(guest)
            self._plug_in(guest, given)
        else:
            log.info("guest.not_started", vm=given.vm, reason="its interface is gone again: the event is old")
            return
        guests.configure(guest, given)
        has_come = await self._take_over(guest, given)
        if guest not in self._told:
            who = {"cluster": given.cluster, "vm": given.vm, "node": self._node}
            await self._bus.publish(GuestRunning(**who, generation=given.generation), trace)
            self._told.add(guest)
            log.info("guest.running", vm=given.vm, namespace=guest.namespace)
        if has_come:
            guests.announce(guest, given)

    async def _take_over(self, guest: Guest, given: IfaceReady) -> bool:
        """Have the node that it comes from let go of it; False when it comes from none. TryAgain when that node does
        not answer.
        """
        move = self._records.move(guest)
        if move is None or move.released or move.event.generation != given.generation:
            return False
        subject = release.subject(guest.cluster, guest.vm, move.event.source, given.generation)
        try:
            await self._client.request(subject, timeout=_RELEASE_SECONDS)
        except (nats.errors.Error, TimeoutError) as error:
            sentence = f"the hypervisor of {move.event.source} does not let go of {guest.vm}: {error!r}"
            raise TryAgain(Code.INTERNAL, sentence) from error
        self._records.put_move(guest, move.model_copy(update={"released": True}))
        return True

    def _plug_in(self, guest: Guest, given: IfaceReady) -> None:
        if given.guest_interface is not None:
            guests.plug_in(guest, given.guest_interface)
            return
        relay = self._relays.pop(guest, None)
        if relay is not None:
            relay.close()
        outer, _ = guests.open_tap(given.interface)
        inner, name = guests.open_tap("guest%d")
        guests.plug_in(guest, name)
        self._relays[guest] = Relay(outer, inner, partial(self._unplugged, guest))

    def _unplugged(self, guest: Guest) -> None:
        # The event that says why comes by itself: iface.removed, or iface.drifted when it has been made anew.
        log.info("guest.unplugged", vm=guest.vm)
        self._relays.pop(guest, None)

    def _stop(self, cluster: str, vm: str, generation: int) -> None:
        guest = self._guest(cluster, vm)
        given = self._records.get(guest)
        if given is None or given.generation > generation:
            return
        self._remove(guest)
        log.info("guest.stopped", vm=vm)

    def _remove(self, guest: Guest) -> None:
        relay = self._relays.pop(guest, None)
        if relay is not None:
            relay.close()
        guests.remove(guest)
        self._told.discard(guest)
        self._records.remove(guest)

    def _guest(self, cluster: str, vm: str) -> Guest:
        return Guest(cluster, vm, self._node, self._prefix)


def _is_there(interface: str) -> bool:
    # /sys/class/net would be that of the mount namespace; this file is that of the process's network namespace.
    lines = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    return interface in {line.partition(":")[0].strip() for line in lines}


async def compose(service: Service, settings: HypervisorSettings) -> None:
    """Construct the hypervisor of a node and start it."""
    records = guests.records_of(settings.state_dir)
    hypervisor = Hypervisor(settings.node, settings.guest_prefix, records, service.bus, service.bus.client)
    here = {"cluster": settings.cluster, "node": settings.node}
    consumer = Consumer(
        service.bus,
        stream=FACT_STREAM,
        durable=f"hypervisor-{settings.cluster}-{settings.node}",
        routes=[
            Route(IfaceReady, hypervisor.iface_ready, only=here),
            Route(IfaceDrifted, hypervisor.iface_drifted, only=here),
            Route(IfaceRemoved, hypervisor.iface_removed, only=here),
            Route(VmDeleted, hypervisor.vm_deleted, only={"cluster": settings.cluster}),
            Route(VmMigrating, hypervisor.vm_migrating, only={"cluster": settings.cluster}),
        ],
    )
    service.tasks.create_task(_serve(service, settings, hypervisor, consumer))


async def _serve(service: Service, settings: HypervisorSettings, hypervisor: Hypervisor, consumer: Consumer) -> None:
    await service.bus.connected()
    await service.bus.client.subscribe(release.pattern(settings.cluster, settings.node), cb=hypervisor.release)
    await hypervisor.restore()
    await consumer.run()


if __name__ == "__main__":
    settings = HypervisorSettings()
    run("hypervisor", settings, partial(compose, settings=settings))
