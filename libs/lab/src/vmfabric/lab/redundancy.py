"""Of several programs that can do the same: which one does it."""

import asyncio
import json
import time

import nats.errors
import nats.js.errors
from nats.js.api import ClusterInfo

from vmfabric.lab import control_plane, processes
from vmfabric.lab.client import LabClient
from vmfabric.lab.errors import LabError
from vmfabric.lab.lab import Lab
from vmfabric.lab.processes import Program

_POLL_SECONDS = 0.05


def copies(lab: Lab, service: str) -> list[Program]:
    """All programs of the lab that are this service."""
    return [it for it in (*lab.servers(), *lab.services()) if control_plane.original(it.service) == service]


def writer(lab: Lab, service: str) -> Program | None:
    """The scheduler or the ipam that holds the writer lock, by its own words; None while nobody does."""
    return next((it for it in copies(lab, service) if _writes(lab, it)), None)


async def leader(outside: LabClient, stream: str) -> str | None:
    """The nats-server of a cluster that leads a stream; None while none does, or nobody answers."""
    cluster = await _cluster(outside, stream)
    return cluster.leader if cluster else None


async def led(outside: LabClient, stream: str, seconds: float = 20) -> str:
    """The stream's leader, when two others are up to date. LabError when it does not come so far in time."""
    deadline = time.monotonic() + seconds
    while True:
        cluster = await _cluster(outside, stream)
        others = (cluster.replicas or []) if cluster else []
        if cluster and cluster.leader and [it.current and not it.offline for it in others] == [True, True]:
            return cluster.leader
        if time.monotonic() > deadline:
            raise LabError(
                f"stream {stream} has no leader with two current replicas after {seconds:.0f} s: {cluster}"
            )
        await asyncio.sleep(_POLL_SECONDS)


async def _cluster(outside: LabClient, stream: str) -> ClusterInfo | None:
    try:
        return (await outside.client.jetstream(timeout=1).stream_info(stream)).cluster
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError):
        return None


def _writes(lab: Lab, program: Program) -> bool:
    if processes.pid(lab.state, program) is None:
        return False
    lines = [line for line in processes.output(lab.state, program).splitlines() if line.startswith("{")]
    words = [json.loads(line).get("event") for line in lines]
    told = [word for word in words if word in {"writer.active", "writer.waiting", "service.interrupted"}]
    return told[-1:] == ["writer.active"]
