"""Hears guests that come: while a VM is wired and has not been routed yet, its port is listened to."""

import asyncio
import socket
from collections.abc import Collection
from dataclasses import dataclass

import structlog

from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.contract.errors import TryAgain
from vmfabric.contract.guest import GuestRunning
from vmfabric.contract.names import VmName
from vmfabric.node_agent.domain.announcement import is_announcement
from vmfabric.node_agent.domain.port import interface_of
from vmfabric.runtime.message import Publisher

_ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23
"""Of packet(7); Python has no names for them."""
_FRAME = 128
"""As much of a frame as is looked at."""
_AGAIN_SECONDS = 0.5

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Awaited:
    desired: DesiredVm
    listener: socket.socket


class Arrivals:
    """Says `guest.running` in place of a hypervisor that says nothing."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._awaited: dict[VmName, _Awaited] = {}
        self._heard: dict[VmName, DesiredVm] = {}
        """Those of which that is still to be said."""
        self._said: dict[VmName, int] = {}
        """The generations of those of which it was said."""
        self._news = asyncio.Event()

    def expect(self, wanted: Collection[DesiredVm]) -> None:
        """Listen for the guests of these VMs that are on their way to this node, and for no other any more."""
        prepared = {vm.vm: vm for vm in wanted if vm.presence is Presence.PREPARED}
        self._said = {vm: generation for vm, generation in self._said.items() if vm in prepared}
        expected = {vm: it for vm, it in prepared.items() if self._said.get(vm) != it.generation}
        for vm in [vm for vm, awaited in self._awaited.items() if expected.get(vm) != awaited.desired]:
            self._ignore(vm)
        self._heard = {vm: it for vm, it in self._heard.items() if expected.get(vm) == it}
        for vm in expected.keys() - self._awaited.keys() - self._heard.keys():
            self._listen(expected[vm])

    async def run(self) -> None:
        """Say what was heard, until cancelled."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                await self._say()
        finally:
            for vm in list(self._awaited):
                self._ignore(vm)

    async def _say(self) -> None:
        for vm, desired in list(self._heard.items()):
            event = GuestRunning(cluster=desired.cluster, vm=vm, node=desired.node, generation=desired.generation)
            try:
                await self._publisher.publish(event, desired.trace())
            except TryAgain as error:
                log.debug("fact.later", vm=vm, reason=error.sentence)
                asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._news.set)
            else:
                log.info("guest.heard", cluster=desired.cluster, vm=vm, generation=desired.generation)
                self._heard.pop(vm, None)
                self._said[vm] = desired.generation

    def _listen(self, desired: DesiredVm) -> None:
        # It hears nothing until it is bound: the same guest is heard at the uplink while it runs on its source. What
        # the bridge floods out of the port, to the guest, is not the guest's word either.
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            listener.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            listener.bind((interface_of(desired), _ETH_P_ALL))
        except OSError as error:
            # Its port is not there yet, or not any more; each pass of the agent tries again.
            listener.close()
            log.debug("guest.not_listened_to", vm=desired.vm, reason=str(error))
            return
        self._awaited[desired.vm] = _Awaited(desired, listener)
        asyncio.get_running_loop().add_reader(listener.fileno(), self._readable, desired.vm)

    def _ignore(self, vm: VmName) -> None:
        awaited = self._awaited.pop(vm)
        asyncio.get_running_loop().remove_reader(awaited.listener.fileno())
        awaited.listener.close()

    def _readable(self, vm: VmName) -> None:
        awaited = self._awaited[vm]
        try:
            frame = awaited.listener.recv(_FRAME)
        except BlockingIOError:
            return
        except OSError as error:
            # The port has gone down or away.
            log.debug("guest.not_listened_to", vm=vm, reason=str(error))
            self._ignore(vm)
            return
        if is_announcement(frame, awaited.desired.mac):
            self._ignore(vm)
            self._heard[vm] = awaited.desired
            self._news.set()
