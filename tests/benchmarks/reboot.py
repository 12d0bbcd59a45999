"""A node with many VMs boots while bus and database are away: when is all that it had served again, and what does the
return of the control plane cost?

There are no guests: what counts is the way to the node. Some of the addresses the node itself answers for, so that
they can be pinged.
"""

import asyncio
import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import cluster
from kernel import KernelRoutes, kernel_routes

from vmfabric.contract.addresses import Family, Prefix, host_prefix
from vmfabric.contract.admin import Applied
from vmfabric.contract.dataplane import KERNEL_PROTOCOL, LOCAL_PREFERENCE, RESTORED_LOCAL_PREFERENCE
from vmfabric.contract.vm import VmFailed, VmReady
from vmfabric.lab import faults, processes
from vmfabric.lab.client import LabClient
from vmfabric.lab.hosts import bgp_routes, local_preferences, run_on
from vmfabric.lab.lab import Lab
from vmfabric.lab.pings import EVERY_SECONDS, pinged

VMS = 500
_NODE = "n1"
_SERVICES = ("node-agent", "bgp-announcer")
_PINGED = 3
"""Of each family."""
_NETWORK, _BLOCK4, _BLOCK6 = "wide4", "198.18.0.0/22", "2001:db8:100::/64"
_MANY_SECONDS = 240.0
_SETTLE_SECONDS = 3.0
"""Long enough for what comes late, such as a second reconciliation, to show in the pings."""


@dataclass(frozen=True, slots=True)
class Reboot:
    """Seconds since the node's services were started, and since bus and database were back."""

    vms: int
    routes: int
    frr: float
    """From the power to the start of the services."""
    node: float
    core: float
    reflectors: float
    served: Mapping[int, int]
    """Routes of the core by local preference, before the control plane is back."""
    confirmed: float
    confirmed_by: Mapping[int, int]
    interrupted: int
    """Routes that were missing in the core's kernel for a moment after they had been there."""
    longest: float
    pings: int
    lost: int


async def run(lab: Lab, outside: LabClient) -> Reboot:
    """Measure in a lab with the cluster applied."""
    prefixes = await _made(lab, outside)
    for prefix in _pinged_of(prefixes):
        run_on(lab, _NODE, "ip", f"-{prefix.version}", "route", "add", "local", str(prefix), "dev", "lo")
    async with kernel_routes(lab, _NODE) as node, kernel_routes(lab) as core:
        return await _measured(lab, prefixes, node, core)


async def _made(lab: Lab, outside: LabClient) -> frozenset[Prefix]:
    """All on one node, without guests."""
    for host in (it.name for it in lab.topology.nodes):
        faults.kill_service(lab, "hypervisor", host)
    await _make_room(outside)
    names = [f"vm{number}" for number in range(VMS)]
    for name in names:
        body = {"cluster": cluster.NAME, "vm": name, **cluster.SIZE, "node": _NODE}
        await outside.publish("vm.requested", body)
    ready = [await outside.wait_for(VmReady, vm=name, unless=VmFailed, seconds=_MANY_SECONDS) for name in names]
    prefixes = frozenset(host_prefix(it.address) for vm in ready for it in vm.addresses)
    await _until(lambda: bgp_routes(lab, "core").keys() == prefixes, "every route is in the core")
    return prefixes


async def _make_room(outside: LabClient) -> None:
    """The example has 256 addresses and 32 CPUs."""
    network = {"name": _NETWORK, "prefix": _BLOCK4}
    await outside.ask("network.apply", {"spec": network}, Applied)
    pool = {**cluster.spec("pool"), "blocks": [_BLOCK4, _BLOCK6]}
    await outside.ask("pool.apply", {"spec": pool}, Applied)
    node = cluster.spec("node")
    capacity = {**node["capacity"], "cpu": 2 * VMS}
    await outside.ask("node.apply", {"spec": {**node, "name": _NODE, "capacity": capacity}}, Applied)


async def _measured(lab: Lab, prefixes: frozenset[Prefix], node: KernelRoutes, core: KernelRoutes) -> Reboot:
    for server in ("nats", "postgres"):
        faults.kill_service(lab, server)
    await asyncio.to_thread(faults.cut_power, lab, _NODE)
    await _until(lambda: not bgp_routes(lab, "core") and not _own_routes(lab), "every route is gone")
    node.forget()
    core.forget()
    routes = [str(prefix.network_address) for prefix in prefixes]
    power = time.monotonic()
    await asyncio.to_thread(faults.restore_power, lab, _NODE, management=False, services=_SERVICES)
    started = min(_started_at(lab, service) for service in _SERVICES)
    in_node, in_core = await node.wait(routes), await core.wait(routes)
    hosts = ("core", *(it.name for it in lab.topology.reflectors))
    await _until(partial(_have, lab, hosts, prefixes, {RESTORED_LOCAL_PREFERENCE}), "the reflectors have them all")
    in_reflectors = time.monotonic()
    served = _by_preference(lab, prefixes)
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(pinged(lab, "core", it.network_address)) for it in _pinged_of(prefixes)
        ]
        await asyncio.sleep(_SETTLE_SECONDS)
        for server in ("nats", "postgres"):
            await asyncio.to_thread(faults.start_service, lab, server)
        back = time.monotonic()
        faults.restore_management(lab, _NODE)
        await _until(partial(_have, lab, hosts, prefixes, {LOCAL_PREFERENCE}), "every route is confirmed")
        confirmed = time.monotonic()
        await asyncio.sleep(_SETTLE_SECONDS)
    missing = set(routes) & set(core.away())
    if missing:
        raise RuntimeError(f"{len(missing)} routes have gone from the core's kernel, such as {min(missing)}")
    return Reboot(
        vms=VMS,
        routes=len(prefixes),
        frr=started - power,
        node=in_node - started,
        core=in_core - started,
        reflectors=in_reflectors - started,
        served=served,
        confirmed=confirmed - back,
        confirmed_by=_by_preference(lab, prefixes),
        interrupted=len({route for route, _ in core.gaps} & set(routes)),
        longest=max((seconds for _, seconds in core.gaps), default=0.0),
        pings=sum(it.sent for it in streams),
        lost=sum(it.lost for it in streams),
    )


def _pinged_of(prefixes: Collection[Prefix]) -> list[Prefix]:
    """Some of each family."""
    return [it for family in Family for it in [it for it in prefixes if Family.of(it) is family][:_PINGED]]


def _own_routes(lab: Lab) -> str:
    return run_on(lab, _NODE, "ip", "route", "show", "proto", str(KERNEL_PROTOCOL))


def _have(lab: Lab, hosts: Collection[str], prefixes: frozenset[Prefix], preferences: set[int]) -> bool:
    """Whether each of these routers has every route, with this preference."""
    for host in hosts:
        found = local_preferences(lab, host)
        if found.keys() != prefixes or set(found.values()) != preferences:
            return False
    return True


def _by_preference(lab: Lab, prefixes: frozenset[Prefix]) -> Mapping[int, int]:
    found = [preference for prefix, preference in local_preferences(lab, "core").items() if prefix in prefixes]
    return {preference: found.count(preference) for preference in set(found)}


def _started_at(lab: Lab, service: str) -> float:
    """When its process was started, to 10 ms (proc(5)), as time.monotonic() would have said it."""
    run_ = processes.last_run(lab.state, lab.program(service, _NODE))
    if run_ is None:
        raise RuntimeError(f"{service} was not started")
    asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return run_.started / os.sysconf("SC_CLK_TCK") - asleep


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _MANY_SECONDS
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_MANY_SECONDS:.0f} s until {what}")
        await asyncio.sleep(0.1)


def table(reboot: Reboot) -> str:
    """The figures for a person."""
    rows = [
        ("the services' start, after the power is back", reboot.frr),
        ("all in the node's kernel, after the services' start", reboot.node),
        ("all in the core's kernel", reboot.core),
        ("all in both reflectors", reboot.reflectors),
        ("all confirmed in core and reflectors, after bus and database are back", reboot.confirmed),
    ]
    lines = [f"{reboot.vms} VMs, {reboot.routes} routes{'':<50}{'seconds':>16}"]
    lines += [f"{what:<72}{seconds:>12.2f}" for what, seconds in rows]
    lines += [
        f"the core's routes by local preference: {_shown(reboot.served)} before, {_shown(reboot.confirmed_by)} after",
        f"routes that left the core for a moment: {reboot.interrupted}, for {reboot.longest * 1000:.1f} ms at most",
        f"lost of {reboot.pings} pings, each {EVERY_SECONDS * 1000:.0f} ms to {2 * _PINGED} addresses: {reboot.lost}",
    ]
    return "\n".join(lines)


def _shown(found: Mapping[int, int]) -> str:
    return ", ".join(f"{count} with {preference}" for preference, count in sorted(found.items())) or "none"
