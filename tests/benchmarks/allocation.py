"""Allocations over NATS: `vm.placed` in, `ip.allocated` out, each answer committed before it is said.

    python tests/benchmarks/allocation.py NATS_URL DATABASE_URL

The bus and the database are the caller's, and empty. ipam runs as a process of its own; so does this load. Pools that
are to be full already are filled in the database before ipam starts, every hundredth or tenth address left free.
"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import count, islice

import asyncpg
import nats
import psutil
from nats.aio.client import Client
from nats.aio.msg import Msg

from vmfabric.contract.addresses import Prefix
from vmfabric.contract.envelope import Outgoing, Trace, outgoing
from vmfabric.contract.errors import TryAgain
from vmfabric.contract.ip import IpAllocated
from vmfabric.contract.vm import VmPlaced
from vmfabric.database.migrations import migrate
from vmfabric.ipam.main import MIGRATIONS
from vmfabric.ipam.writer import SOURCE
from vmfabric.runtime.clock import SystemClock
from vmfabric.runtime.micro import request

_START_SECONDS = 120.0
_RUN_SECONDS = 120.0
_MEASURED = 2500
_WARM_UP = 200
_ALL_BUT_ONE_PERCENT_OF_22 = 1014


@dataclass(frozen=True, slots=True)
class Case:
    """A pool, as it is when it is measured."""

    cluster: str
    block: str
    """Half of it for each number of requests in flight."""
    words: str
    free_of: int | None = None
    """Every so manieth address is free; None when all are."""
    warm_up: int = _WARM_UP
    measured: int = _MEASURED


_CASES = (
    Case("thousand", "10.64.0.0/21", "/22, 0 to 99 % full", warm_up=0, measured=_ALL_BUT_ONE_PERCENT_OF_22),
    Case("empty", "10.66.0.0/15", "/16, empty"),
    Case("ninety", "10.68.0.0/15", "/16, 90 % full", free_of=10),
    Case("million", "10.0.0.0/11", "/12, empty"),
    Case("full", "10.96.0.0/11", "/12, 99 % full", free_of=100),
    Case("six", "2001:db8::/63", "/64, empty"),
)
_IN_FLIGHT = (8, 256)


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement."""

    pool: str
    in_flight: int
    """Requests whose answer is awaited at the same time."""
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: Mapping[str, float]
    """What each process used for one allocation."""


async def run(nats_url: str, database_url: str, servers: Mapping[str, int]) -> list[Row]:
    """Measure every pool with few and with many requests in flight. Starts ipam and ends it.

    `servers` are the process ids of those whose CPU time is to be shown beside that of ipam and of the load.
    """
    await _fill(database_url)
    settings = {"VMFABRIC_NATS_URL": nats_url, "VMFABRIC_DATABASE_URL": database_url, "VMFABRIC_LOG_LEVEL": "warning"}
    ipam = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vmfabric.ipam"), env={**os.environ, **settings}
    )
    client = await nats.connect(nats_url)
    used = _Used({"ipam": ipam.pid, **servers, "load": os.getpid()})
    rows: list[Row] = []
    try:
        await _until_it_answers(client)
        for in_flight in _IN_FLIGHT:
            for case in _CASES:
                load = _Load(client, _name(case, in_flight))
                await load.listen()
                rows.append(await load.measure(case, in_flight, used))
    finally:
        await client.close()
        ipam.terminate()
        await ipam.wait()
    return rows


async def _fill(database_url: str) -> None:
    """The pools, and the VMs that hold most of some, as ipam itself would have written them."""
    await migrate(database_url, schema=SOURCE, directory=MIGRATIONS)
    connection = await asyncpg.connect(database_url, server_settings={"search_path": SOURCE})
    for case in _CASES:
        halves: list[Prefix] = list(ip_network(case.block).subnets())
        for block, in_flight in zip(halves, _IN_FLIGHT, strict=True):
            await _fill_pool(connection, _name(case, in_flight), block, case.free_of)
    await connection.execute("ANALYZE")
    await connection.close()


async def _fill_pool(connection: asyncpg.Connection, name: str, block: Prefix, free_of: int | None) -> None:
    await connection.execute("INSERT INTO network (name, prefix, note) VALUES ($1, $2, '')", name, block)
    await connection.execute("INSERT INTO pool VALUES ($1, $1, 300)", name)
    await connection.execute("INSERT INTO block VALUES ($1, 0, $2)", name, block)
    if free_of is None:
        return
    await connection.execute(
        "INSERT INTO allocation (address, pool, cluster, vm, node, generation, position, since)"
        " SELECT host(network($2::cidr) + number)::inet, $1, $1, 'old' || number, 'n1', 1, 0, now()"
        " FROM generate_series(0, $3::bigint - 1) AS number WHERE number % $4 <> 0",
        *(name, block, block.num_addresses, free_of),
    )
    await connection.execute(
        "INSERT INTO lease (cluster, vm, node, generation, state, since)"
        " SELECT cluster, vm, node, generation, 'held', since FROM allocation WHERE pool = $1",
        name,
    )


def _name(case: Case, in_flight: int) -> str:
    return f"{case.cluster}-{in_flight}"


async def _until_it_answers(client: Client) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while True:
            try:
                await request(client, "network.list", b"{}")
            except TryAgain:
                # ipam is still starting.
                await asyncio.sleep(0.1)
            else:
                return


class _Used:
    """CPU time of processes and of their children."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}

    def seconds(self) -> Mapping[str, float]:
        """Since they began, by name. A process that is a child of another one counts for itself."""
        own = {process.pid for process in self._processes.values()}
        return {
            name: sum(_cpu_seconds(it) for it in (process, *_children_but(process, own)))
            for name, process in self._processes.items()
        }


def _children_but(process: psutil.Process, own: Collection[int]) -> list[psutil.Process]:
    return [child for child in process.children() if child.pid not in own]


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


class _Load:
    """Asks for VMs of one cluster, and takes the time until each has its address."""

    def __init__(self, client: Client, cluster: str) -> None:
        self._client = client
        self._cluster = cluster
        self._numbers = count()
        self._asked_at: dict[str, float] = {}
        self._waited: list[float] = []
        self._answered = asyncio.Semaphore(0)

    async def listen(self) -> None:
        """Hear the answers of this cluster."""
        await self._client.subscribe(f"{IpAllocated.subject_template.stem}.{self._cluster}.>", cb=self._heard)

    async def measure(self, case: Case, in_flight: int, used: "_Used") -> Row:
        """Warm up, then measure."""
        await self.allocate(case.warm_up, in_flight)
        before, started = used.seconds(), time.perf_counter()
        waited = await self.allocate(case.measured, in_flight)
        elapsed = time.perf_counter() - started
        cpu = {name: (after - before[name]) / case.measured * 1e6 for name, after in used.seconds().items()}
        percentiles = statistics.quantiles(waited, n=100)
        return Row(
            case.words, in_flight, case.measured / elapsed, percentiles[49] * 1000, percentiles[98] * 1000, cpu
        )

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


def table(rows: list[Row]) -> str:
    """The rows for a person."""
    head = f"{'pool':<22}{'in flight':>10}{'allocations/s':>15}{'p50 ms':>9}{'p99 ms':>9}   CPU for each, µs"
    lines = [
        f"{row.pool:<22}{row.in_flight:>10}{row.per_second:>15,.0f}{row.p50_ms:>9.2f}{row.p99_ms:>9.2f}"
        f"   {', '.join(f'{name} {us:.0f}' for name, us in row.cpu_us.items())}"
        for row in rows
    ]
    return "\n".join([head, *lines])


if __name__ == "__main__":
    import uvloop

    print(table(uvloop.run(run(sys.argv[1], sys.argv[2], {}))))
