"""One run: load, strikes one after the other, and the verdict."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from chaos import verdict
from chaos.load import Load
from chaos.pinged import Timeline, pinged
from chaos.strikes import KINDS, STRUCK, Kind
from outside.cluster import Cluster
from vmfabric.contract.admin import VmState
from vmfabric.contract.cluster import Virtualization
from vmfabric.lab import traces

_PAUSE_SECONDS = (1.0, 4.0)
_RECOVERED_SECONDS = 60.0
_GRACE_SECONDS = 2.0
"""Until packets that a strike has taken are answered again, after the sessions are up."""
_NAMES = 10
_PER_SECOND = 1.0


@dataclass(frozen=True, slots=True)
class Struck:
    """A strike that was carried out."""

    kind: Kind
    begun: float
    recovered: float
    evidence: str


@dataclass
class Report:
    """What came of a run."""

    seed: int
    struck: list[Struck] = field(default_factory=list)
    timelines: list[Timeline] = field(default_factory=list)
    asked: dict[str, int] = field(default_factory=dict)
    facts: int = 0
    wrong: list[str] = field(default_factory=list)

    def lost_in(self, struck: Struck) -> int:
        """Packets of all timelines that were lost while it lasted."""
        return sum(struck.begun <= at <= struck.recovered for timeline in self.timelines for at in timeline.lost())

    def lost_without_a_reason(self) -> list[str]:
        """Packets that were lost while nothing took routes away, in words."""
        windows = [(it.begun, it.recovered + _GRACE_SECONDS) for it in self.struck if it.kind.takes_routes]
        return [
            f"a packet to {timeline.vm} was lost while nothing took routes away, {self._meanwhile(at)}"
            for timeline in self.timelines
            for at in timeline.lost()
            if not any(begun <= at <= end for begun, end in windows)
        ]

    def _meanwhile(self, at: float) -> str:
        last = next((it for it in reversed(self.struck) if it.begun <= at), None)
        if last is None:
            return "before the first strike"
        took = last.recovered - last.begun
        return f"{at - last.begun:.2f} s after {last.kind.name}, which was over after {took:.2f} s"


async def run(
    cluster: Cluster, *, seed: int, seconds: float = 0.0, strikes: int = 0, kinds: Sequence[Kind] = KINDS
) -> Report:
    """In a lab with the cluster applied and without any VM, which it is again afterwards.

    It lasts so many seconds, or so many strikes if that is longer.
    """
    report = Report(seed)
    random = Random(seed)  # noqa: S311  # the one source of chance
    load = Load(cluster.outside, Random(seed + 1), names=_NAMES, per_second=_PER_SECOND)  # noqa: S311
    await cluster.apply(virtualization=Virtualization.LXD)
    before = await traces.settled(cluster.lab, cluster.outside)
    async with _anchors(cluster, load) as report.timelines:
        working = asyncio.create_task(load.run())
        try:
            end = time.monotonic() + seconds
            for number, kind in enumerate(_turns(random, kinds)):
                if time.monotonic() > end and number >= strikes:
                    break
                await _strike(cluster, report, random, kind)
        finally:
            working.cancel()
            await asyncio.wait({working})
        vms = await _settled(cluster, load, report)
    report.asked = dict(load.asked)
    report.wrong += await verdict.wrong(cluster, load, vms)
    report.wrong += report.lost_without_a_reason()
    await cluster.delete(*(it.vm for it in vms))
    report.wrong += [f"left behind: {it}" for it in await traces.left_over(cluster.lab, cluster.outside, before)]
    report.facts, impossible = await verdict.history(cluster.outside)
    report.wrong += impossible
    return report


@asynccontextmanager
async def _anchors(cluster: Cluster, load: Load) -> AsyncIterator[list[Timeline]]:
    """One VM on each node that stays there, pinged."""
    async with AsyncExitStack() as stack:
        timelines: list[Timeline] = []
        for node in cluster.lab.topology.nodes:
            vm = f"anchor-{node.name}"
            await cluster.request(vm, node=node.name)
            ready = await cluster.ready(vm)
            await cluster.reachable(ready)
            timelines.append(await stack.enter_async_context(pinged(cluster.lab, vm, ready.addresses[0].address)))
        yield timelines


def _turns(random: Random, kinds: Sequence[Kind]) -> Iterator[Kind]:
    """Every kind has its turn before one comes again."""
    while True:
        yield from random.sample(kinds, len(kinds))


async def _strike(cluster: Cluster, report: Report, random: Random, kind: Kind) -> None:
    await asyncio.sleep(random.uniform(*_PAUSE_SECONDS))
    node = random.choice([node.name for node in cluster.lab.topology.nodes])
    begun = time.monotonic()
    try:
        evidence = await kind.strike(cluster.lab, random, node)
        async with asyncio.timeout(_RECOVERED_SECONDS):
            await cluster.settled()
            await _answer(report.timelines)
    except STRUCK as error:
        report.wrong.append(f"{kind.name}: {error!r}")
        return
    struck = Struck(kind, begun, time.monotonic(), evidence)
    report.struck.append(struck)
    _tell(report, struck)


async def _answer(timelines: Sequence[Timeline]) -> None:
    """Every anchor has answered just now."""
    while not all(timeline.answers(time.monotonic()) for timeline in timelines):
        await asyncio.sleep(0.05)


async def _settled(cluster: Cluster, load: Load, report: Report) -> list[VmState]:
    try:
        return await verdict.settled(cluster, load)
    except TimeoutError:
        states = list((await load.states() or {}).values())
        report.wrong += [
            f"{it.vm} is still {it.phase}, and waits for {it.waiting_for}" for it in states if it.waiting_for
        ]
        return states


def _tell(report: Report, struck: Struck) -> None:
    took = struck.recovered - struck.begun
    lost = report.lost_in(struck)
    sys.stdout.write(f"{struck.kind.name:<26} whole after {took:5.1f} s, {lost:4} packets lost   {struck.evidence}\n")
    sys.stdout.flush()
