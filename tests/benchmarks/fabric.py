"""From `vm.requested` to the route in the core's kernel, beside the same announcement by FRR without us.

Both are measured in one lab, one after the other: the ratio holds on any machine, the milliseconds only on this one.
"""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network

import cluster
from kernel import KernelRoutes, kernel_routes

from vmfabric.contract.addresses import Family, Prefix
from vmfabric.contract.dataplane import KERNEL_PROTOCOL, ROUTE_METRIC
from vmfabric.contract.vm import StepTimes, VmDeleted, VmFailed, VmReady
from vmfabric.lab.client import LabClient
from vmfabric.lab.hosts import run_on
from vmfabric.lab.lab import Lab

_REPEATS = 10
_MANY = 100


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


async def run(lab: Lab, outside: LabClient) -> Fabric:
    """Measure in a lab with the cluster applied."""
    async with kernel_routes(lab) as core:
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


async def _vms(outside: LabClient, core: KernelRoutes, names: Sequence[str]) -> tuple[float, float, list[VmReady]]:
    """Milliseconds until the last is ready, and until the last is in the core; the VMs are removed again."""
    started = time.monotonic()
    for name in names:
        await outside.client.publish("vm.requested", _body({"cluster": cluster.NAME, "vm": name, **cluster.SIZE}))
    ready = [await outside.wait_for(VmReady, vm=name, unless=VmFailed, seconds=cluster.SECONDS) for name in names]
    ready_at = max(outside.when(VmReady, vm=name) for name in names)
    routes = [str(it.address) for vm in ready for it in vm.addresses if it.family is Family.IPV4]
    in_core_at = await core.wait(routes)
    for name in names:
        await outside.publish("vm.delete.requested", {"cluster": cluster.NAME, "vm": name})
    for name in names:
        await outside.wait_for(VmDeleted, vm=name, seconds=cluster.SECONDS)
    return (ready_at - started) * 1000, (in_core_at - started) * 1000, ready


async def _bare(lab: Lab, core: KernelRoutes, prefixes: Sequence[Prefix]) -> float:
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
