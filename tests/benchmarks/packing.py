"""How well policies pack: the same requests on the same nodes, one policy after the other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from ipaddress import IPv4Address
from random import Random

from packing_trace import Vm, vm_types, vms

from vmfabric.contract.admin import NodeState
from vmfabric.contract.cluster import Capacity, NodeSpec, Overcommit, Placement, Policy, Virtualization
from vmfabric.scheduler.domain.candidate import Candidate, Usage
from vmfabric.scheduler.domain.placement import Market
from vmfabric.scheduler.domain.wish import Wish

_SEEDS = (1, 2, 3)
_NODES = 40
_DAYS = 10.0
_WARM_UP_DAYS = 4.0
"""Until then the nodes fill up."""
_DEPLOYMENTS_PER_DAY = 190.0
_PARTS = 640
"""Of a machine: requests are in whole numbers."""
_LARGE = _PARTS // 4


class DataCentre:
    """Nodes, and what they carry."""

    def __init__(self, nodes: int, parts: int) -> None:
        capacity = Capacity(cpu=parts, memory_mb=parts, disk_gb=parts)
        specs = [
            NodeSpec(name=f"n{number:05}", cluster="bench", address=IPv4Address(number), capacity=capacity)
            for number in range(1, nodes + 1)
        ]
        self.nodes = {spec.name: Candidate(spec, NodeState.JOINED, Usage()) for spec in specs}

    def use(self, name: str, takes: Usage) -> Candidate:
        """A VM comes; or goes, when that is negative."""
        node = self.nodes[name]
        self.nodes[name] = replace(node, used=node.used + takes)
        return self.nodes[name]

    def left(self, node: Candidate, takes: Usage) -> tuple[int, int, int]:
        """CPU, memory and disk."""
        has, used = node.spec.capacity, node.used
        return (
            has.cpu - used.cpu - takes.cpu,
            has.memory_mb - used.memory_mb - takes.memory_mb,
            has.disk_gb - used.disk_gb - takes.disk_gb,
        )

    def fitting(self, takes: Usage) -> list[Candidate]:
        """Nodes with room, by name."""
        return [node for node in self.nodes.values() if min(self.left(node, takes)) >= 0]


class Placer:
    """Our own placement, as the scheduler calls it."""

    def __init__(self, centre: DataCentre, policy: Policy) -> None:
        rules = Placement(policy=policy, overcommit=Overcommit(cpu=1.0, memory=1.0, disk=1.0))
        self._market = Market(centre.nodes.values(), rules)

    def choose(self, takes: Usage) -> str | None:
        """The node, if one fits."""
        return self._market.choose(Wish(takes, Virtualization.KVM)).node

    def changed(self, node: Candidate) -> None:
        """It carries something else now."""
        self._market.change(node)


class Classic:
    """A rule of textbooks: one of the nodes that fit."""

    def __init__(self, centre: DataCentre, pick: Callable[[Sequence[Candidate], Usage], Candidate]) -> None:
        self._centre = centre
        self._pick = pick

    def choose(self, takes: Usage) -> str | None:
        """The node, if one fits."""
        fitting = self._centre.fitting(takes)
        return self._pick(fitting, takes).name if fitting else None

    def changed(self, node: Candidate) -> None:
        """It looks at all of them each time."""


@dataclass(slots=True)
class Row:
    """What came of a policy."""

    policy: str
    asked: int = 0
    failed: int = 0
    large: int = 0
    large_failed: int = 0
    cores_used: float = 0.0
    """Of all nodes, times days."""
    nodes_used: float = 0.0
    """Share of the nodes that carry something, times days."""
    days: float = 0.0

    def pass_days(self, days: float, centre: DataCentre) -> None:
        """Nothing changes for so long."""
        nodes = centre.nodes.values()
        self.days += days
        self.cores_used += days * sum(node.used.cpu / node.spec.capacity.cpu for node in nodes) / len(nodes)
        self.nodes_used += days * sum(node.used.vms > 0 for node in nodes) / len(nodes)

    def count(self, takes: Usage, *, failed: bool) -> None:
        """One request."""
        is_large = max(takes.cpu, takes.memory_mb, takes.disk_gb) >= _LARGE
        self.asked += 1
        self.failed += failed
        self.large += is_large
        self.large_failed += is_large and failed


Make = Callable[[DataCentre, Random], Placer | Classic]

_POLICIES: Mapping[str, Make] = {
    "pack": lambda centre, _: Placer(centre, Policy.PACK),
    "spread": lambda centre, _: Placer(centre, Policy.SPREAD),
    "first-fit": lambda centre, _: Classic(centre, lambda fitting, _takes: fitting[0]),
    "best-fit": lambda centre, _: Classic(
        centre, lambda fitting, takes: min(fitting, key=lambda node: sum(centre.left(node, takes)))
    ),
    "random": lambda centre, random: Classic(centre, lambda fitting, _takes: random.choice(fitting)),
}
_BOUND = "one machine as large as all"


def run() -> list[Row]:
    """Every policy, and what none can beat."""
    rows = [Row(name) for name in (*_POLICIES, _BOUND)]
    sizes = {it.vm_type_id: _parts(it.core, it.memory, it.ssd) for it in vm_types()}
    for seed in _SEEDS:
        random = Random(seed)  # noqa: S311  # requests and choices are no secrets
        asked = list(vms(random, days=_DAYS, deployments_per_day=_DEPLOYMENTS_PER_DAY))
        for row in rows:
            is_bound = row.policy == _BOUND
            centre = DataCentre(1, _NODES * _PARTS) if is_bound else DataCentre(_NODES, _PARTS)
            placer = _POLICIES["first-fit" if is_bound else row.policy](centre, random)
            _live(asked, sizes, centre, placer, row)
    return rows


def _live(
    asked: Sequence[Vm], sizes: Mapping[int, Usage], centre: DataCentre, placer: Placer | Classic, row: Row
) -> None:
    ends: list[tuple[float, int, str, Usage]] = []
    now = _WARM_UP_DAYS
    for vm in asked:
        while ends and ends[0][0] <= vm.starttime:
            end, _, node, took = heappop(ends)
            now = _measure(row, now, end, centre)
            placer.changed(centre.use(node, -took))
        now = _measure(row, now, vm.starttime, centre)
        takes = sizes[vm.vm_type_id]
        chosen = placer.choose(takes)
        if vm.starttime >= _WARM_UP_DAYS:
            row.count(takes, failed=chosen is None)
        if chosen is None:
            continue
        placer.changed(centre.use(chosen, takes))
        if vm.endtime is not None:
            heappush(ends, (vm.endtime, vm.vm_id, chosen, takes))


def _measure(row: Row, before: float, now: float, centre: DataCentre) -> float:
    if now <= before:
        return before
    row.pass_days(now - before, centre)
    return now


def _parts(core: float, memory: float, ssd: float) -> Usage:
    return Usage(round(core * _PARTS), round(memory * _PARTS), round(ssd * _PARTS), 1)


def table(rows: Sequence[Row]) -> str:
    """The rows for a person."""
    days = f"{_DAYS - _WARM_UP_DAYS:g} days after {_WARM_UP_DAYS:g} days of filling up"
    lines = [
        f"{_NODES} nodes, {days}, {len(_SEEDS)} seeds, {rows[0].asked:,} requests.",
        "The requests are made up, with the schema of the Azure packing trace of 2020; they are not the trace.",
        "Large: at least a quarter of a machine.",
        "",
        f"{'policy':<30}{'failed':>9}{'of large':>10}{'cores used':>12}{'nodes used':>12}{'density':>9}",
    ]
    lines += [
        f"{row.policy:<30}{row.failed / row.asked:>9.2%}{row.large_failed / row.large:>10.1%}"
        f"{row.cores_used / row.days:>12.1%}{row.nodes_used / row.days:>12.1%}"
        f"{row.cores_used / row.nodes_used:>9.1%}"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(run()))
