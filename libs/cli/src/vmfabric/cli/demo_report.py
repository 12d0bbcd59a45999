"""How long each step of a demo took."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.table import Table

from vmfabric.cli.screen import duration
from vmfabric.contract.addresses import Family
from vmfabric.contract.vm import VmReady


@dataclass
class VmTimes:
    """One VM. Moments are those of time.monotonic()."""

    vm: str
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
            yield from self._since(self.requested, f"first ping from the core, {family}", moment)
        if self.delete_requested is not None:
            yield from self._since(self.delete_requested, "delete requested, heard: vm.deleted", self.deleted_at)

    @staticmethod
    def _since(start: float, step: str, moment: float | None) -> Iterator[tuple[str, float]]:
        if moment is not None:
            yield step, (moment - start) * 1000


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
