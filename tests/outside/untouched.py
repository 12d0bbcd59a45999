"""What VMs must not notice: no packet is lost, no BGP UPDATE is sent, and nothing changes in a kernel or an FRR."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from chaos.pinged import Timeline, pinged
from outside.cluster import Cluster
from vmfabric.contract.vm import VmReady
from vmfabric.lab import traces
from vmfabric.lab.hosts import updates_received
from vmfabric.lab.lab import Lab
from vmfabric.lab.pings import EVERY_SECONDS

_QUIET_SECONDS = 1.0
_LEAST_SHARE = 0.5
"""Of the packets of a stream that have to have been sent, however slow the machine is."""


@dataclass(frozen=True)
class Picture:
    """Of the whole data centre."""

    updates: Mapping[str, int]
    there: traces.Traces

    @staticmethod
    def of(lab: Lab) -> "Picture":
        """Now."""
        return Picture(received(lab), traces.on_hosts(lab))


def received(lab: Lab) -> dict[str, int]:
    """The UPDATEs that the reflectors and the core have been sent."""
    found: dict[str, int] = {}
    for router in (*lab.topology.reflectors, lab.router("core")):
        found |= updates_received(lab, router.name)
    return found


@asynccontextmanager
async def untouched(cluster: Cluster, vms: Sequence[VmReady]) -> AsyncIterator[None]:
    """While the block lasts, and a second longer. AssertionError with what has changed."""
    before = await _quiet(cluster.lab)
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(pinged(cluster.lab, f"{vm.vm} at {it.address}", it.address))
            for vm in vms
            for it in vm.addresses
        ]
        await _all_answer(streams)
        yield
        await asyncio.sleep(_QUIET_SECONDS)
        await _all_answer(streams)
        after = await asyncio.to_thread(Picture.of, cluster.lab)
    assert after.updates == before.updates
    assert not after.there ^ before.there
    for stream in streams:
        least = (stream.ended - stream.begun) / EVERY_SECONDS * _LEAST_SHARE
        assert stream.sent > least, f"{stream.vm} was sent {stream.sent} packets only"
        lost = [round(at - stream.begun, 2) for at in stream.lost()]
        assert not lost, (
            f"{stream.vm} lost {len(lost)} of {stream.sent} packets, sent after these seconds: {lost[:20]}"
        )


async def _quiet(lab: Lab) -> Picture:
    """When what has come before has arrived everywhere."""
    async with asyncio.timeout(30):
        picture = await asyncio.to_thread(Picture.of, lab)
        while True:
            await asyncio.sleep(_QUIET_SECONDS)
            now = await asyncio.to_thread(Picture.of, lab)
            if now == picture:
                return now
            picture = now


async def _all_answer(streams: Sequence[Timeline]) -> None:
    async with asyncio.timeout(10):
        while not all(stream.answers(time.monotonic()) for stream in streams):
            await asyncio.sleep(0.05)
