"""From `vm.requested` to the route in the core's kernel, beside the same announcement by FRR without us.

Both are measured in one lab, one after the other: the ratio holds on any machine, the milliseconds only on this one.
"""

import asyncio
import json
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from vmfabric.cli.documents import read
from vmfabric.contract.addresses import Family, Prefix
from vmfabric.contract.admin import Applied
from vmfabric.contract.dataplane import KERNEL_PROTOCOL, ROUTE_METRIC
from vmfabric.contract.node import NodeJoined
from vmfabric.contract.route import BgpSessionUp
from vmfabric.contract.vm import StepTimes, VmDeleted, VmFailed, VmReady
from vmfabric.lab.client import LabClient, connect
from vmfabric.lab.hosts import run_on
from vmfabric.lab.lab import Lab

_EXAMPLE = Path(__file__).parents[2] / "deploy" / "examples" / "ip-fabric.yaml"
_CLUSTER = "msk"
_REPEATS = 10
_MANY = 100
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Fabric:
    """Milliseconds; medians of one VM after the other, and the last of many at once."""

    steps: StepTimes
    ready: float
    one_in_core: float
    one_bare: float
    many: int
    many_ready: float
    many_in_core: float
    many_bare: float


class CoreKernel:
    """When each route came into the core's kernel, as the kernel itself tells."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self._news = asyncio.Condition()

    async def follow(self, lines: asyncio.StreamReader) -> None:
        while line := (await lines.readline()).decode():
            words = line.split()
            if words and words[0] != "Deleted":
                self.at.setdefault(words[0], time.monotonic())
                async with self._news:
                    self._news.notify_all()

    async def wait(self, routes: Sequence[str]) -> float:
        """When the last of these was there."""
        async with asyncio.timeout(_SECONDS), self._news:
            await self._news.wait_for(lambda: all(route in self.at for route in routes))
        return max(self.at[route] for route in routes)


@asynccontextmanager
async def _core_kernel(lab: Lab) -> AsyncIterator[CoreKernel]:
    process = await asyncio.create_subprocess_exec(
        *("ip", "-4", "-n", lab.namespace("core"), "monitor", "route"), stdout=subprocess.PIPE
    )
    kernel = CoreKernel()
    following = asyncio.create_task(kernel.follow(process.stdout)) if process.stdout else None
    try:
        yield kernel
    finally:
        process.kill()
        await process.wait()
        if following is not None:
            await following


async def run(lab: Lab) -> Fabric:
    """Measure in a lab to which nothing has been applied."""
    async with connect(lab.nats_url) as outside, _core_kernel(lab) as core:
        await _apply(lab, outside)
        ones = [await _vms(outside, core, [f"one{number}"]) for number in range(_REPEATS)]
        many = await _vms(outside, core, [f"many{number}" for number in range(_MANY)])
        bare_ones = [
            await _bare(lab, core, [ip_network(f"198.51.100.{255 - number}/32")]) for number in range(_REPEATS)
        ]
        bare_many = await _bare(lab, core, [ip_network(f"198.51.100.{120 + number}/32") for number in range(_MANY)])
    steps = [ready.steps_ms for _, _, facts in ones for ready in facts]
    return Fabric(
        steps=StepTimes.model_validate(
            {name: statistics.median(getattr(step, name) for step in steps) for name in StepTimes.model_fields}
        ),
        ready=statistics.median(ready for ready, _, _ in ones),
        one_in_core=statistics.median(in_core for _, in_core, _ in ones),
        one_bare=statistics.median(bare_ones),
        many=_MANY,
        many_ready=many[0],
        many_in_core=many[1],
        many_bare=bare_many,
    )


async def _apply(lab: Lab, outside: LabClient) -> None:
    for document in read(_EXAMPLE.read_text(), origin=str(_EXAMPLE)):
        spec = {**document.spec, **({"quarantine_seconds": 3600} if document.kind == "pool" else {})}
        await outside.ask(f"{document.kind}.apply", {"spec": spec}, Applied)
    for node in lab.topology.nodes:
        await outside.wait_for(NodeJoined, node=node.name, seconds=_SECONDS)
        for reflector in lab.topology.reflectors:
            await outside.wait_for(BgpSessionUp, node=node.name, reflector=reflector.ipv4, seconds=_SECONDS)


async def _vms(outside: LabClient, core: CoreKernel, names: Sequence[str]) -> tuple[float, float, list[VmReady]]:
    """Milliseconds until the last is ready, and until the last is in the core; the VMs are removed again."""
    size = {"cpu": 1, "memory_mb": 64, "disk_gb": 1}
    started = time.monotonic()
    for name in names:
        await outside.client.publish("vm.requested", _body({"cluster": _CLUSTER, "vm": name, **size}))
    ready = [await outside.wait_for(VmReady, vm=name, unless=VmFailed, seconds=_SECONDS) for name in names]
    ready_at = max(outside.when(VmReady, vm=name) for name in names)
    routes = [str(it.address) for vm in ready for it in vm.addresses if it.family is Family.IPV4]
    in_core_at = await core.wait(routes)
    for name in names:
        await outside.publish("vm.delete.requested", {"cluster": _CLUSTER, "vm": name})
    for name in names:
        await outside.wait_for(VmDeleted, vm=name, seconds=_SECONDS)
    return (ready_at - started) * 1000, (in_core_at - started) * 1000, ready


async def _bare(lab: Lab, core: CoreKernel, prefixes: Sequence[Prefix]) -> float:
    """The same routes put into the node's kernel by hand: what FRR and the reflectors need by themselves."""
    routes = [str(prefix.network_address) for prefix in prefixes]
    for route in routes:
        core.at.pop(route, None)
    words = f"dev lo proto {KERNEL_PROTOCOL} metric {ROUTE_METRIC}"
    started = time.monotonic()
    _batch(lab, [f"route add {prefix} {words}" for prefix in prefixes])
    milliseconds = (await core.wait(routes) - started) * 1000
    _batch(lab, [f"route del {prefix} {words}" for prefix in prefixes])
    return milliseconds


def _batch(lab: Lab, lines: Sequence[str]) -> None:
    run_on(lab, "n1", "ip", "-batch", "-", stdin="\n".join(lines) + "\n")


def _body(values: dict[str, object]) -> bytes:
    return json.dumps(values).encode()


def table(fabric: Fabric) -> str:
    """The figures for a person."""
    steps = fabric.steps
    rows = [
        ("one VM: node chosen (vm.placed)", steps.placed, None),
        ("one VM: addresses (ip.allocated)", steps.allocated, None),
        ("one VM: wired, read back (iface.ready)", steps.wired, None),
        ("one VM: advertised, read back (route.announced)", steps.announced or 0.0, None),
        ("one VM: vm.ready heard", fabric.ready, None),
        ("one VM: route in the core's kernel", fabric.one_in_core, fabric.one_bare),
        ("the same route by FRR alone", fabric.one_bare, None),
        (f"{fabric.many} VMs at once: all ready", fabric.many_ready, None),
        (f"{fabric.many} VMs at once: all in the core's kernel", fabric.many_in_core, fabric.many_bare),
        (f"the same {fabric.many} routes by FRR alone", fabric.many_bare, None),
    ]
    lines = [f"{'milliseconds since the request':<52}{'ms':>9}{'ratio':>8}"]
    lines += [f"{what:<52}{ms:>9.1f}" + (f"{ms / bare:>8.2f}" if bare is not None else "") for what, ms, bare in rows]
    lines.append(f"one VM costs {fabric.one_in_core - fabric.one_bare:.0f} ms more than FRR alone")
    return "\n".join(lines)
