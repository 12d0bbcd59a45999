"""Allocations over NATS: `vm.placed` in, `ip.allocated` out, each answer committed before it is said.

    python tests/benchmarks/allocation.py NATS_URL DATABASE_URL

The bus and the database are the caller's, and empty. ipam runs as a process of its own; so does this load.
"""

import asyncio
import os
import statistics
import sys
import time
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import count, islice

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from vmfabric.contract import admin
from vmfabric.contract.envelope import Outgoing, Trace, outgoing
from vmfabric.contract.errors import TryAgain
from vmfabric.contract.ip import IpAllocated
from vmfabric.contract.pool import NetworkSpec, PoolSpec
from vmfabric.contract.vm import VmPlaced
from vmfabric.runtime.clock import SystemClock
from vmfabric.runtime.micro import request

_START_SECONDS = 30.0
_RUN_SECONDS = 120.0
_MEASURED = 2500
_WARM_UP = 200
_FILL_IN_FLIGHT = 400
_NINETY_PERCENT_OF_16 = 58_982


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement."""

    pool: str
    in_flight: int
    """Requests whose answer is awaited at the same time."""
    per_second: float
    p50_ms: float
    p99_ms: float


async def run(nats_url: str, database_url: str) -> list[Row]:
    """Measure a /16 while it is empty and when it is 90 % full, then a /64. Starts ipam and ends it."""
    settings = {"VMFABRIC_NATS_URL": nats_url, "VMFABRIC_DATABASE_URL": database_url, "VMFABRIC_LOG_LEVEL": "warning"}
    ipam = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vmfabric.ipam"), env={**os.environ, **settings}
    )
    client = await nats.connect(nats_url)
    try:
        sixteen = await _load(client, "sixteen", "10.0.0.0/16")
        rows = [await sixteen.measure("/16, empty", in_flight) for in_flight in (8, 256)]
        await sixteen.allocate(_NINETY_PERCENT_OF_16 - sixteen.allocated, _FILL_IN_FLIGHT)
        rows += [await sixteen.measure("/16, 90 % full", in_flight) for in_flight in (8, 256)]
        sixty_four = await _load(client, "sixty-four", "2001:db8::/64")
        rows += [await sixty_four.measure("/64", in_flight) for in_flight in (8, 256)]
    finally:
        await client.close()
        ipam.terminate()
        await ipam.wait()
    return rows


class _Load:
    """Asks for VMs of one cluster, and takes the time until each has its address."""

    def __init__(self, client: Client, cluster: str) -> None:
        self._client = client
        self._cluster = cluster
        self._numbers = count()
        self._asked_at: dict[str, float] = {}
        self._waited: list[float] = []
        self._answered = asyncio.Semaphore(0)
        self.allocated = 0

    async def listen(self) -> None:
        """Hear the answers of this cluster."""
        await self._client.subscribe(f"{IpAllocated.subject_template.stem}.{self._cluster}.>", cb=self._heard)

    async def measure(self, pool: str, in_flight: int) -> Row:
        """Warm up, then measure."""
        await self.allocate(_WARM_UP, in_flight)
        started = time.perf_counter()
        waited = await self.allocate(_MEASURED, in_flight)
        elapsed = time.perf_counter() - started
        percentiles = statistics.quantiles(waited, n=100)
        return Row(pool, in_flight, _MEASURED / elapsed, percentiles[49] * 1000, percentiles[98] * 1000)

    async def allocate(self, wanted: int, in_flight: int) -> list[float]:
        """Ask for so many VMs; the seconds that each waited."""
        self._waited = []
        messages = [self._message(number) for number in islice(self._numbers, wanted)]
        async with asyncio.timeout(_RUN_SECONDS):
            for asked, message in enumerate(messages):
                if asked >= in_flight:
                    await self._answered.acquire()
                self._asked_at[message.subject.rpartition(".")[2]] = time.perf_counter()
                await self._client.publish(message.subject, message.body, headers=message.headers)
            for _ in range(min(in_flight, wanted)):
                await self._answered.acquire()
        self.allocated += wanted
        return self._waited

    async def _heard(self, message: Msg) -> None:
        vm = message.subject.split(".")[3]
        self._waited.append(time.perf_counter() - self._asked_at.pop(vm))
        self._answered.release()

    def _message(self, number: int) -> Outgoing:
        event = VmPlaced(
            cluster=self._cluster, vm=f"vm{number}", node="n1", generation=number + 1, mac="02:00:00:00:00:01"
        )
        return outgoing(event, source="benchmark", trace=Trace.new(), at=SystemClock().now())


async def _load(client: Client, cluster: str, block: str) -> _Load:
    network = NetworkSpec(name=cluster, prefix=ip_network(block))
    pool = PoolSpec(name=cluster, cluster=cluster, blocks=(ip_network(block),))
    await _ask(client, "network.apply", admin.ApplyNetwork(spec=network).model_dump_json().encode())
    await _ask(client, "pool.apply", admin.ApplyPool(spec=pool).model_dump_json().encode())
    load = _Load(client, cluster)
    await load.listen()
    return load


async def _ask(client: Client, subject: str, body: bytes) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while True:
            try:
                await request(client, subject, body)
            except TryAgain:
                # ipam is still starting.
                await asyncio.sleep(0.1)
            else:
                return


def table(rows: list[Row]) -> str:
    """The rows for a person."""
    lines = [f"{'pool':<16}{'in flight':>10}{'allocations/s':>15}{'p50 ms':>9}{'p99 ms':>9}"]
    lines += [
        f"{row.pool:<16}{row.in_flight:>10}{row.per_second:>15,.0f}{row.p50_ms:>9.2f}{row.p99_ms:>9.2f}"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    import uvloop

    print(table(uvloop.run(run(sys.argv[1], sys.argv[2]))))
