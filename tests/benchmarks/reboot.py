"""A node with many VMs boots while the bus and the database are down: from its snapshot to the core's kernel."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import cluster
from core import core_kernel

from vmfabric.contract.addresses import Family, host_prefix
from vmfabric.contract.admin import Applied
from vmfabric.contract.dataplane import KERNEL_PROTOCOL, LOCAL_PREFERENCE
from vmfabric.contract.vm import VmFailed, VmReady
from vmfabric.lab import faults, frr
from vmfabric.lab.client import LabClient
from vmfabric.lab.hosts import bgp_routes, run_on
from vmfabric.lab.lab import Lab
from vmfabric.lab.services import HYPERVISOR

VMS = 500
_NODE = "n1"
_POOL = {"name": "many", "cluster": cluster.NAME, "blocks": ["100.64.0.0/20"]}
_SECONDS = 60.0
_CONTROL_PLANE = ("scheduler", "ipam", "nats", "postgres")
_ON_THE_NODE = ("node-agent", "bgp-announcer")


@dataclass(frozen=True, slots=True)
class Reboot:
    """Seconds, each since the services of the node, or the control plane, were started."""

    made: float
    in_kernel: float
    in_core: float
    preference: int
    confirmed: float


async def run(lab: Lab, outside: LabClient) -> Reboot:
    """Measure in a lab with the cluster applied; it is not as it was afterwards."""
    faults.kill_service(lab, HYPERVISOR, _NODE)  # what is measured is not how fast the lab makes guests
    started = time.monotonic()
    addresses = await _made(outside)
    made = time.monotonic() - started
    await _until(lambda: len(_routes_in_core(lab)) >= VMS)
    for service in _CONTROL_PLANE:
        faults.kill_service(lab, service)
    faults.cut_power(lab, _NODE)
    await _until(lambda: not _routes_in_core(lab))
    faults.restore_fabric(lab, _NODE)
    await asyncio.to_thread(faults.start_frr, lab, _NODE)
    async with core_kernel(lab) as core:
        booted = time.monotonic()
        for service in _ON_THE_NODE:
            faults.start_service(lab, service, _NODE, wait=False)
        in_core = asyncio.create_task(core.wait(addresses))
        await _until(lambda: _routes_of_node(lab) >= VMS)
        in_kernel = time.monotonic() - booted
        in_core_at = await in_core
    (preference,) = _preferences(lab)
    back = time.monotonic()
    faults.restore_management(lab, _NODE)
    for service in reversed(_CONTROL_PLANE):
        await asyncio.to_thread(faults.start_service, lab, service)
    await _until(lambda: _preferences(lab) == {LOCAL_PREFERENCE})
    return Reboot(made, in_kernel, in_core_at - booted, preference, time.monotonic() - back)


async def _made(outside: LabClient) -> list[str]:
    await cluster.grow(outside, _NODE, cpu=VMS, memory_mb=VMS * 64, disk_gb=VMS)
    await outside.ask("network.apply", {"spec": {"name": _POOL["name"], "prefix": "100.64.0.0/16"}}, Applied)
    await outside.ask("pool.apply", {"spec": _POOL}, Applied)
    wanted = [{"family": "ipv4", "pool": _POOL["name"]}, {"family": "ipv6"}]
    names = [f"vm{number}" for number in range(VMS)]
    for name in names:
        body = {"cluster": cluster.NAME, "vm": name, "node": _NODE, "addresses": wanted, **cluster.SIZE}
        await outside.publish("vm.requested", body)
    ready = [await outside.wait_for(VmReady, vm=name, unless=VmFailed, seconds=_SECONDS) for name in names]
    return [
        str(host_prefix(it.address).network_address)
        for vm in ready
        for it in vm.addresses
        if it.family is Family.IPV4
    ]


def _routes_of_node(lab: Lab) -> int:
    return run_on(lab, _NODE, "ip", "-4", "route", "show", "proto", str(KERNEL_PROTOCOL)).count("\n")


def _routes_in_core(lab: Lab) -> list[str]:
    return [str(prefix) for prefix in bgp_routes(lab, "core") if Family.of(prefix) is Family.IPV4]


def _preferences(lab: Lab) -> set[int]:
    shown = json.loads(frr.vtysh(lab.topology, lab.router("core"), "show bgp ipv4 unicast json"))
    return {path["locPrf"] for paths in shown["routes"].values() for path in paths if path.get("bestpath")}


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_SECONDS):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


def table(reboot: Reboot) -> str:
    """The figures for a person."""
    rows = [
        (f"{VMS} VMs, IPv4 and IPv6, asked for at once on one node: all are ready", reboot.made),
        (
            "the node boots with nothing in its kernel and FRR, without bus and database: its own routes",
            reboot.in_kernel,
        ),
        (f"the same: IPv4 routes in the core's kernel, local preference {reboot.preference}", reboot.in_core),
        (f"the control plane is started again: local preference {LOCAL_PREFERENCE}", reboot.confirmed),
    ]
    return "\n".join(f"{what:<94}{seconds:6.1f} s" for what, seconds in rows)
