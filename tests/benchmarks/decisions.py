"""How many nodes placement chooses in a second: alone, and with its transactions in Postgres."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address
from itertools import count, cycle, islice

from packing import DataCentre

from vmfabric.contract.addresses import Family
from vmfabric.contract.admin import NodeState
from vmfabric.contract.bgp import Bgp, Reflector
from vmfabric.contract.cluster import ClusterSpec, NetworkType, Placement, Virtualization
from vmfabric.contract.envelope import Trace
from vmfabric.contract.vm import VmRequested
from vmfabric.database.migrations import migrate
from vmfabric.database.pool import connect
from vmfabric.runtime.clock import SystemClock
from vmfabric.runtime.message import Message
from vmfabric.scheduler.desk import Desk
from vmfabric.scheduler.domain.candidate import Usage
from vmfabric.scheduler.domain.changes import Heard, NodeKey
from vmfabric.scheduler.domain.deadlines import Patience
from vmfabric.scheduler.domain.placement import Market
from vmfabric.scheduler.domain.wish import Wish
from vmfabric.scheduler.handlers import Handlers
from vmfabric.scheduler.main import MIGRATIONS
from vmfabric.scheduler.store import PostgresStore
from vmfabric.scheduler.transaction import transaction

_NODES = (100, 1_000, 10_000)
_PARTS = 640
_SIZES = tuple(Usage(cores, memory, cores, 1) for cores in (1, 2, 4, 8) for memory in (1, 2, 4))
_ALIVE = 50
"""VMs after which the oldest goes again."""
_AT_ONCE = 512
_ALONE = 10
_RULES = Placement()
_AS = 65000


@dataclass(frozen=True, slots=True)
class Row:
    """Placements in a second."""

    nodes: int
    anew: float
    """Every node is looked at for each."""
    again: float
    """One of a dozen sizes that were asked for before; after each, two nodes have changed."""
    at_once: float
    """Committed in Postgres, many requests at once."""
    alone: float
    """Committed in Postgres, one request after the other."""


async def run(database_url: str) -> list[Row]:
    """In one database."""
    await migrate(database_url, schema="scheduler", directory=MIGRATIONS)
    return [await _measure(database_url, nodes) for nodes in _NODES]


async def _measure(database_url: str, nodes: int) -> Row:
    centre = DataCentre(nodes, _PARTS)
    anew = max(30_000 // nodes, 5)
    started = time.perf_counter()
    for size in islice(cycle(_SIZES), anew):
        Market(centre.nodes.values(), _RULES).choose(Wish(size, Virtualization.KVM))
    return Row(nodes, anew / (time.perf_counter() - started), _again(centre), *await _committed(database_url, centre))


def _again(centre: DataCentre) -> float:
    market, alive = Market(centre.nodes.values(), _RULES), deque[tuple[str, Usage]]()
    wishes = [Wish(size, Virtualization.KVM) for size in _SIZES]
    for wish in wishes:
        market.choose(wish)
    decisions = 5_000
    started = time.perf_counter()
    for wish in islice(cycle(wishes), decisions):
        chosen = market.choose(wish).node or ""
        alive.append((chosen, wish.takes))
        market.change(centre.use(chosen, wish.takes))
        if len(alive) > _ALIVE:
            node, took = alive.popleft()
            market.change(centre.use(node, -took))
    return decisions / (time.perf_counter() - started)


async def _committed(database_url: str, centre: DataCentre) -> tuple[float, float]:
    """Each number of nodes is a cluster of its own."""
    cluster = f"of-{len(centre.nodes)}"
    pool = await connect(database_url, schema="scheduler")
    store = PostgresStore(pool)
    async with transaction(store) as tx:
        tx.put_cluster(_cluster(cluster))
        for node in centre.nodes.values():
            tx.put_node(node.spec.model_copy(update={"cluster": cluster}))
            tx.put_heard(NodeKey(cluster, node.name), Heard(NodeState.JOINED, SystemClock().now(), ()))
    await pool.execute("ANALYZE")
    desk = Desk(store, committed=lambda: None)
    handlers = Handlers(desk, SystemClock(), Patience())
    asked = _requests(cluster)
    async with desk.open():
        await handlers.requested(next(asked))
        started = time.perf_counter()
        await asyncio.gather(*(handlers.requested(message) for message in islice(asked, _AT_ONCE)))
        at_once = _AT_ONCE / (time.perf_counter() - started)
        started = time.perf_counter()
        for message in islice(asked, _ALONE):
            await handlers.requested(message)
        alone = _ALONE / (time.perf_counter() - started)
    await pool.close()
    return at_once, alone


def _requests(cluster: str) -> Iterator[Message[VmRequested]]:
    begun = SystemClock().now()
    for number, size in zip(count(1), cycle(_SIZES), strict=False):
        request = VmRequested(
            cluster=cluster, vm=f"vm{number}", cpu=size.cpu, memory_mb=16 * size.memory_mb, disk_gb=size.disk_gb
        )
        yield Message(request, Trace.new(), begun + timedelta(milliseconds=number), number)


def _cluster(name: str) -> ClusterSpec:
    bgp = Bgp(
        asn=_AS,
        reflectors=(Reflector(address=IPv4Address("192.0.2.1"), asn=_AS),),
        community={Family.IPV4: f"{_AS}:4", Family.IPV6: f"{_AS}:6"},
    )
    return ClusterSpec(name=name, type=NetworkType.IP_FABRIC, bgp=bgp, placement=_RULES)


def table(rows: Sequence[Row]) -> str:
    """The rows for a person."""
    at_once = f"Postgres, {_AT_ONCE} at once"
    lines = [f"{'placements/s':<16}{'every node':>12}{'what changed':>14}{at_once:>24}{'Postgres, one by one':>22}"]
    lines += [
        f"{f'{row.nodes:,} nodes':<16}{row.anew:>12,.0f}{row.again:>14,.0f}{row.at_once:>24,.0f}{row.alone:>22,.1f}"
        for row in rows
    ]
    return "\n".join(lines)
