"""VMs through the scheduler: `vm.requested` in, `vm.ready` out; ipam and the nodes are answered for by this load.

    python tests/benchmarks/creation.py NATS_URL DATABASE_URL

The bus and the database are the caller's, and empty. The scheduler runs as a process of its own; so does this load.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from vmfabric.contract.errors import TryAgain
from vmfabric.runtime.micro import request

_START_SECONDS = 30.0
_RUN_SECONDS = 300.0
_VMS = 3000
_NODES = 20

_CLUSTER = {
    "name": "msk",
    "type": "ip-fabric",
    "bgp": {
        "asn": 65000,
        "reflectors": [{"address": "10.0.0.1", "asn": 65000}],
        "community": {"ipv4": "65000:100", "ipv6": "65000:600"},
    },
}


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement."""

    in_flight: int
    """VMs whose `vm.ready` is awaited at the same time."""
    per_second: float
    p50_ms: float
    p99_ms: float


async def run(nats_url: str, database_url: str) -> list[Row]:
    """Measure one VM at a time, and many. Starts the scheduler and ends it."""
    settings = {"VMFABRIC_NATS_URL": nats_url, "VMFABRIC_DATABASE_URL": database_url, "VMFABRIC_LOG_LEVEL": "warning"}
    scheduler = subprocess.Popen(  # noqa: ASYNC220  # it returns at once
        [sys.executable, "-m", "vmfabric.scheduler"], env={**os.environ, **settings}
    )
    client = await nats.connect(nats_url)
    load = _Load(client)
    try:
        await load.prepare()
        return [await load.measure(vms, in_flight) for vms, in_flight in ((200, 1), (_VMS, 32), (_VMS, 512))]
    finally:
        await load.end()
        await client.close()
        scheduler.terminate()
        scheduler.wait(_START_SECONDS)


class _Load:
    """Asks for VMs, and says at once what ipam, node-agent and bgp-announcer would say."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._beating: asyncio.Task[None] | None = None
        self._asked_at: dict[str, float] = {}
        self._waited: list[float] = []
        self._answered = asyncio.Semaphore(0)
        self._made = 0

    async def prepare(self) -> None:
        """A cluster whose nodes are heard."""
        await self._apply("cluster.apply", _CLUSTER)
        for number in range(_NODES):
            capacity = {"cpu": 65536, "memory_mb": 1 << 30, "disk_gb": 1 << 30}
            address = f"10.0.1.{number + 1}"
            await self._apply(
                "node.apply", {"name": f"n{number}", "cluster": "msk", "address": address, "capacity": capacity}
            )
        self._beating = asyncio.create_task(self._beat())
        await self._until_heard()
        await self._client.subscribe("vm.placed.>", cb=self._placed)
        await self._client.subscribe("$KV.desired.vm.>", cb=self._wanted)
        await self._client.subscribe("vm.ready.>", cb=self._ready)

    async def end(self) -> None:
        """Fall silent."""
        if self._beating is not None:
            self._beating.cancel()

    async def measure(self, wanted: int, in_flight: int) -> Row:
        """Ask for so many VMs."""
        self._waited = []
        started = time.perf_counter()
        async with asyncio.timeout(_RUN_SECONDS):
            for asked in range(wanted):
                if asked >= in_flight:
                    await self._answered.acquire()
                await self._ask()
            for _ in range(min(in_flight, wanted)):
                await self._answered.acquire()
        elapsed = time.perf_counter() - started
        percentiles = statistics.quantiles(self._waited, n=100)
        return Row(in_flight, wanted / elapsed, percentiles[49] * 1000, percentiles[98] * 1000)

    async def _ask(self) -> None:
        self._made += 1
        vm = f"vm{self._made}"
        self._asked_at[vm] = time.perf_counter()
        await self._say("vm.requested", {"cluster": "msk", "vm": vm, "cpu": 1, "memory_mb": 16, "disk_gb": 1})

    async def _placed(self, message: Msg) -> None:
        body = json.loads(message.data)
        number = body["generation"]
        address = f"100.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        await self._answer("ip.allocated", body, {"addresses": [{"address": address, "pool": "public"}]})

    async def _wanted(self, message: Msg) -> None:
        body = json.loads(message.data)
        guest = {"mac": body["mac"], "mtu": 1500, "addresses": []}
        await self._answer("iface.ready", body, {"interface": "x_net0", "guest": guest})
        await self._answer("route.announced", body, {"routes": []})

    async def _ready(self, message: Msg) -> None:
        vm = message.subject.rpartition(".")[2]
        self._waited.append(time.perf_counter() - self._asked_at.pop(vm))
        self._answered.release()

    async def _answer(self, subject: str, body: Mapping[str, Any], more: Mapping[str, Any]) -> None:
        who = {name: body[name] for name in ("cluster", "vm", "node", "generation")}
        await self._say(f"{subject}.{who['cluster']}.{who['vm']}.{who['node']}", {**who, **more})

    async def _say(self, subject: str, body: Mapping[str, Any]) -> None:
        await self._client.publish(subject, json.dumps(body).encode())

    async def _beat(self) -> None:
        while True:
            for number in range(_NODES):
                beat = {"cluster": "msk", "node": f"n{number}", "addresses": [], "vms": 0}
                await self._say(f"node.heartbeat.msk.n{number}", beat)
            await asyncio.sleep(1)

    async def _until_heard(self) -> None:
        async with asyncio.timeout(_START_SECONDS):
            while True:
                nodes = json.loads(await request(self._client, "node.list", b"{}"))["nodes"]
                if all(node["state"] == "joined" for node in nodes):
                    return
                await asyncio.sleep(0.1)

    async def _apply(self, subject: str, spec: Mapping[str, Any]) -> None:
        async with asyncio.timeout(_START_SECONDS):
            while True:
                try:
                    await request(self._client, subject, json.dumps({"spec": spec}).encode())
                except TryAgain:
                    # The scheduler is still starting.
                    await asyncio.sleep(0.1)
                else:
                    return


def table(rows: list[Row]) -> str:
    """The rows for a person."""
    lines = [f"{'in flight':>10}{'VMs/s':>10}{'p50 ms':>9}{'p99 ms':>9}"]
    lines += [f"{row.in_flight:>10}{row.per_second:>10,.0f}{row.p50_ms:>9.2f}{row.p99_ms:>9.2f}" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    import uvloop

    print(table(uvloop.run(run(sys.argv[1], sys.argv[2]))))
