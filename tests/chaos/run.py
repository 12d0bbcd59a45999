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


_AT_ONCE = 0.3
"""How often two kinds strike at once."""
_ON_ITS_WAY_SECONDS = 0.1
"""A packet that was sent so short a time before a strike may have been on its way when that came."""


@dataclass(frozen=True, slots=True)
class Struck:
    """One strike, or two at once, carried out."""

    kinds: tuple[Kind, ...]
    begun: float
    recovered: float
    evidence: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of all that struck."""
        return " and ".join(kind.name for kind in self.kinds)

    @property
    def takes_routes(self) -> bool:
        """Whether packets may be lost by it."""
        return any(kind.takes_routes for kind in self.kinds)


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
        windows = [
            (it.begun - _ON_ITS_WAY_SECONDS, it.recovered + _GRACE_SECONDS) for it in self.struck if it.takes_routes
        ]
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
        after = f"{at - last.begun:.2f} s after {last.name}, which was over after {took:.2f} s"
        return after + next((f", {it.begun - at:.2f} s before {it.name}" for it in self.struck if it.begun > at), "")


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
            done = 0
            for turn in _turns(random, kinds):
                if time.monotonic() > end and done >= strikes:
                    break
                done += len(turn)
                await _strike(cluster, report, random, turn)
        finally:
            load.stop()
            async with asyncio.timeout(_RECOVERED_SECONDS):
                await working
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


def _turns(random: Random, kinds: Sequence[Kind]) -> Iterator[tuple[Kind, ...]]:
    """Every kind has its turn before one comes again, some of them two at once."""
    while True:
        left = random.sample(kinds, len(kinds))
        while left:
            first = left.pop()
            second = next((it for it in left if it.goes_with(first)), None) if random.random() < _AT_ONCE else None
            if second is None:
                yield (first,)
            else:
                left.remove(second)
                yield (first, second)


async def _strike(cluster: Cluster, report: Report, random: Random, kinds: tuple[Kind, ...]) -> None:
    await asyncio.sleep(random.uniform(*_PAUSE_SECONDS))
    nodes = random.sample([node.name for node in cluster.lab.topology.nodes], len(kinds))
    begun = time.monotonic()
    # Each has a source of chance of its own: which of them asks first is no part of the seed.
    chances = [Random(random.random()) for _ in kinds]  # noqa: S311
    each = zip(kinds, chances, nodes, strict=True)
    strikes = [kind.strike(cluster.lab, chance, node) for kind, chance, node in each]
    results = await asyncio.gather(*strikes, return_exceptions=True)
    failures = [it for it in results if isinstance(it, BaseException)]
    name = " and ".join(kind.name for kind in kinds)
    try:
        for failure in failures:
            raise failure
        async with asyncio.timeout(_RECOVERED_SECONDS):
            await cluster.settled()
            await _answer(report.timelines)
    except STRUCK as error:
        report.wrong.append(f"{name}: {error!r}")
        return
    evidence = tuple(it for it in results if isinstance(it, str))
    struck = Struck(kinds, begun, time.monotonic(), evidence)
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
    sys.stdout.write(
        f"{struck.name:<26} whole after {took:5.1f} s, {lost:4} packets lost   {', '.join(struck.evidence)}\n"
    )
    sys.stdout.flush()
