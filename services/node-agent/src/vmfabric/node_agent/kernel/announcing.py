"""Tells a physical network that a guest has come to this node, so that its switches send frames for it here.

A guest that has migrated says so itself, at best once; what it says may be lost, and not every hypervisor lets it.
"""

import asyncio
import socket
from collections.abc import Collection
from itertools import product

import structlog

from vmfabric.contract.desired import DesiredVm, Presence, Switched
from vmfabric.contract.names import VmName
from vmfabric.node_agent.domain.actual import Link
from vmfabric.node_agent.domain.neighbour import announcement, tagged
from vmfabric.node_agent.domain.vlans import strangers, trunks

_PAUSES = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Seconds before each time that it is said."""
_COME = frozenset({Presence.PREFERRED, Presence.ROUTED})

log = structlog.get_logger()


class Announcing:
    """Looks for guests that have come, and announces them."""

    def __init__(self, tasks: asyncio.TaskGroup, prepared: frozenset[VmName]) -> None:
        """`prepared`: those that were on their way when the agent's last life ended."""
        self._tasks = tasks
        self._prepared = prepared

    def notice(self, wanted: Collection[DesiredVm], links: Collection[Link]) -> None:
        """Announce those that were on their way when this was called last, and are here now."""
        for vm in wanted:
            if vm.vm in self._prepared and vm.presence in _COME and isinstance(vm.wiring, Switched):
                self._tasks.create_task(_announce(vm, vm.wiring, links))
        self._prepared = frozenset(vm.vm for vm in wanted if vm.presence is Presence.PREPARED)


async def _announce(vm: DesiredVm, wiring: Switched, links: Collection[Link]) -> None:
    frames = [announcement(address, vm.mac) for address in vm.addresses]
    # Sent by the bridge itself it leaves by every port, the uplink too; the port's own way leads to the guest. The
    # bridge has no part in the VLANs of its VMs.
    ways: tuple[str, ...] = (wiring.bridge,)
    if wiring.vlan is not None:
        frames = [tagged(frame, wiring.vlan) for frame in frames]
        ways = trunks(wiring.bridge, wiring.vlan, strangers(links))
    if not ways:
        log.warning("guest.not_announced", vm=vm.vm, ways=ways, reason=f"nothing leads to VLAN {wiring.vlan}")
        return
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0) as speaking:
        try:
            for pause in _PAUSES:
                await asyncio.sleep(pause)
                for frame, way in product(frames, ways):
                    speaking.sendto(frame, (way, 0))
        except OSError as error:
            log.warning("guest.not_announced", vm=vm.vm, ways=ways, reason=str(error))
        else:
            log.info("guest.announced", vm=vm.vm, ways=ways, addresses=[str(it) for it in vm.addresses])
