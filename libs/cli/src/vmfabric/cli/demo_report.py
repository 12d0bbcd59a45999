"""How long each step of a demo took."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.table import Table

from vmfabric.cli.screen import duration
from vmfabric.contract.addresses import Family
from vmfabric.contract.cluster import NetworkType
from vmfabric.contract.vm import VmReady


@dataclass
class VmTimes:
    """One VM. Moments are those of time.monotonic()."""

    vm: str
    router: str
    """The host that it is pinged from."""
    requested: float
    ready: VmReady | None = None
    ready_at: float | None = None
    running_at: float | None = None
    answered: dict[Family, float] = field(default_factory=dict)
    """The end of the first ping that was answered."""
    delete_requested: float | None = None
    deleted_at: float | None = None

    def steps(self) -> Iterator[tuple[str, float]]:
        """Milliseconds from the request to each step, and from the request to delete to its end."""
        if self.ready is not None:
            steps = self.ready.steps_ms
            yield "node chosen (vm.placed)", steps.placed
            yield "addresses (ip.allocated)", steps.allocated
            yield "wired, read back (iface.ready)", steps.wired
            if steps.announced is not None:
                yield "advertised, read back (route.announced)", steps.announced
        yield from self._since(self.requested, "heard: vm.ready", self.ready_at)
        yield from self._since(self.requested, "heard: guest.running", self.running_at)
        for family, moment in self.answered.items():
            yield from self._since(self.requested, f"first ping from {self.router}, {family}", moment)
        if self.delete_requested is not None:
            yield from self._since(self.delete_requested, "delete requested, heard: vm.deleted", self.deleted_at)

    @staticmethod
    def _since(start: float, step: str, moment: float | None) -> Iterator[tuple[str, float]]:
        if moment is not None:
            yield step, (moment - start) * 1000


@dataclass(frozen=True, slots=True)
class Shown:
    """What was shown of one network type."""

    type: NetworkType
    times: Sequence[VmTimes]
    pings: int
    """That were answered."""


def summary(shown: Sequence[Shown]) -> Table:
    """A row for each network type."""
    made = Table(box=None, header_style="dim", pad_edge=False)
    made.add_column("network type")
    for column in ("VMs", "ready after (median)", "pings answered", "gone after (median)"):
        made.add_column(column, justify="right")
    for one in shown:
        ready = [times.ready_at - times.requested for times in one.times if times.ready_at is not None]
        gone = [it.deleted_at - it.delete_requested for it in one.times if it.deleted_at and it.delete_requested]
        took = [duration(median(values)) if values else "" for values in (ready, gone)]
        made.add_row(one.type, str(len(one.times)), took[0], str(one.pings), took[1])
    return made


def table(times: Sequence[VmTimes]) -> Table:
    """Each step; for many VMs the quickest, the median and the slowest."""
    by_step: dict[str, list[float]] = {}
    for one in times:
        for step, milliseconds in one.steps():
            by_step.setdefault(step, []).append(milliseconds)
    made = Table(box=None, header_style="dim", pad_edge=False)
    made.add_column("since the request" if len(times) == 1 else f"since the request, {len(times)} VMs at once")
    for column in ("took",) if len(times) == 1 else ("quickest", "median", "slowest"):
        made.add_column(column, justify="right")
    for step, found in by_step.items():
        values = (found[0],) if len(times) == 1 else (min(found), median(found), max(found))
        made.add_row(step, *(duration(value / 1000) for value in values))
    return made
