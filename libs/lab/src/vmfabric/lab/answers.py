"""Whether what was started does its work."""

import asyncio
import json
import time
from collections.abc import Callable

import nats.errors

from vmfabric.contract.errors import VmfabricError
from vmfabric.lab import control_plane, processes
from vmfabric.lab.errors import LabError
from vmfabric.lab.lab import Lab
from vmfabric.lab.processes import Program
from vmfabric.lab.state import State
from vmfabric.runtime import micro
from vmfabric.runtime.bus import open_client

_CONNECT_SECONDS = 3.0
_SERVER_SECONDS = 20.0
_SERVICE_SECONDS = 40.0
_POLL_SECONDS = 0.05


def wait_until_answers(lab: Lab, program: Program) -> None:
    """Wait until a program that was started does its work.

    Servers take connections; scheduler and ipam answer a request; the node's services have said in their logs that
    they have reached the bus and started. LabError with the end of its log when it has ended, or takes too long.
    """
    match control_plane.original(program.service):
        case "postgres":
            number = control_plane.postgres(lab.state, lab.topology).index(program)
            _until(lab, program, lambda: control_plane.postgres_answers(lab.state, number), _SERVER_SECONDS)
        case "nats" | "door":
            _until(lab, program, lambda: asyncio.run(_bus_answers(lab)), _SERVER_SECONDS)
        case "scheduler":
            _until(lab, program, lambda: asyncio.run(_is_served(lab, "cluster.list")), _SERVICE_SECONDS)
        case "ipam":
            _until(lab, program, lambda: asyncio.run(_is_served(lab, "network.list")), _SERVICE_SECONDS)
        case _:
            _until(lab, program, lambda: _has_started(lab.state, program), _SERVICE_SECONDS)


def _has_started(state: State, program: Program) -> bool:
    # Every service runs in vmfabric.runtime.service, which logs these two.
    lines = [line for line in processes.output(state, program).splitlines() if line.startswith("{")]
    return {"bus.connected", "service.started"} <= {json.loads(line).get("event") for line in lines}


async def _bus_answers(lab: Lab) -> bool:
    try:
        async with asyncio.timeout(_CONNECT_SECONDS), await open_client(lab.nats_url) as client:
            await client.jetstream(timeout=1).account_info()
    except (OSError, TimeoutError, nats.errors.Error):
        return False
    return True


async def _is_served(lab: Lab, subject: str) -> bool:
    try:
        async with asyncio.timeout(_CONNECT_SECONDS), await open_client(lab.nats_url) as client:
            await micro.request(client, subject, b"{}", seconds=1)
    except (OSError, TimeoutError, nats.errors.Error, VmfabricError):
        return False
    return True


def _until(lab: Lab, program: Program, condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        where = f"{program.service} on {program.host}"
        if processes.pid(lab.state, program) is None:
            raise LabError(f"{where} has ended; its log says:\n{processes.tail(lab.state, program)}")
        if time.monotonic() > deadline:
            raise LabError(
                f"{where} is not ready after {seconds:.0f} s; its log says:\n{processes.tail(lab.state, program)}"
            )
        time.sleep(_POLL_SECONDS)
