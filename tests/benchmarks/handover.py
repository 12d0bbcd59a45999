"""What a live migration costs: ours beside the two simpler ways, and beside the same steps without our services.

A stand-in for the guest, an address that either node takes for its own, moves in no time, so what is lost is lost by
routing. The last row is the whole product with a guest of the lab, which stands still while it changes its node.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

import cluster

from vmfabric.contract.dataplane import FORWARD_METRIC, KERNEL_PROTOCOL, PREFERRED_METRIC, ROUTE_METRIC
from vmfabric.contract.vm import VmFailed, VmMigrated
from vmfabric.lab import frr
from vmfabric.lab.client import LabClient
from vmfabric.lab.hosts import bgp_routes, run_on
from vmfabric.lab.lab import Lab
from vmfabric.lab.pings import EVERY_SECONDS, pinged

_REPEATS = 3
_SETTLE_SECONDS = 1.0
_STAND_IN = IPv4Address("198.51.100.250")


@dataclass(frozen=True, slots=True)
class Handover:
    """Packets lost, at one every 10 ms, in each repetition."""

    way: str
    lost: tuple[int, ...]


class _StandIn:
    """A guest that is on one node or on the other, and the routes to it."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def runs(self, node: str, *, elsewhere: str) -> None:
        self._guest(elsewhere, "del")
        self._guest(node, "add")

    def starts(self, node: str) -> None:
        self._guest(node, "add")
        self.route(node, "add", ROUTE_METRIC)

    def ends(self, node: str) -> None:
        self._guest(node, "del")
        self.route(node, "del", ROUTE_METRIC)

    def route(self, node: str, verb: str, metric: int, *way: str) -> None:
        words = way or ("dev", "lo")
        own = ("proto", str(KERNEL_PROTOCOL), "metric", str(metric))
        self._ip(node, "route", verb, f"{_STAND_IN}/32", *words, *own)

    async def is_announced_by(self, *nodes: str) -> None:
        """The core has heard of it from these."""
        wanted = {str(self._lab.topology.node(node).ipv4) for node in nodes}
        async with asyncio.timeout(10):
            while self._heard_from() != wanted:
                await asyncio.sleep(0.005)

    async def is_used(self, node: str) -> None:
        """The core's kernel sends packets there."""
        wanted = str(self._lab.topology.node(node).ipv4)
        routes = {str(prefix.network_address): hop for prefix, hop in bgp_routes(self._lab, "core").items()}
        async with asyncio.timeout(10):
            while routes.get(str(_STAND_IN)) != wanted:
                await asyncio.sleep(0.005)
                routes = {str(prefix.network_address): hop for prefix, hop in bgp_routes(self._lab, "core").items()}

    def _heard_from(self) -> set[str]:
        core = self._lab.router("rr1")
        shown = json.loads(frr.vtysh(self._lab.topology, core, f"show bgp ipv4 unicast {_STAND_IN}/32 json"))
        return {hop["ip"] for path in shown.get("paths", ()) for hop in path["nexthops"]}

    def _guest(self, node: str, verb: str) -> None:
        # No address of an interface: zebra would prefer the connected route to the kernel's, and announce nothing.
        self._ip(node, "route", verb, "local", str(_STAND_IN), "dev", "lo")

    def _ip(self, node: str, *words: str) -> None:
        run_on(self._lab, node, "ip", *words)


async def _withdraw_then_announce(guest: _StandIn, _lab: Lab) -> None:
    guest.ends("n1")
    guest.starts("n2")


async def _equal_preference(guest: _StandIn, _lab: Lab) -> None:
    guest.runs("n2", elsewhere="n1")
    guest.route("n2", "add", ROUTE_METRIC)
    await guest.is_announced_by("n1", "n2")
    guest.route("n1", "del", ROUTE_METRIC)


async def _preferred(guest: _StandIn, _lab: Lab) -> None:
    guest.runs("n2", elsewhere="n1")
    guest.route("n2", "add", PREFERRED_METRIC)
    await guest.is_used("n2")
    guest.route("n1", "del", ROUTE_METRIC)
    guest.route("n2", "add", ROUTE_METRIC)
    guest.route("n2", "del", PREFERRED_METRIC)


async def _preferred_and_forwarded(guest: _StandIn, lab: Lab) -> None:
    guest.runs("n2", elsewhere="n1")
    onward = ("via", str(lab.topology.node("n2").ipv4))
    guest.route("n1", "add", FORWARD_METRIC, *onward)
    guest.route("n2", "add", PREFERRED_METRIC)
    await guest.is_used("n2")
    guest.route("n1", "del", FORWARD_METRIC, *onward)
    guest.route("n1", "del", ROUTE_METRIC)
    guest.route("n2", "add", ROUTE_METRIC)
    guest.route("n2", "del", PREFERRED_METRIC)


_WAYS: dict[str, Callable[[_StandIn, Lab], Awaitable[None]]] = {
    "withdrawn by the source, then announced by the target": _withdraw_then_announce,
    "both with equal preference, then the source withdraws": _equal_preference,
    "the target preferred": _preferred,
    "the target preferred, the source forwards": _preferred_and_forwarded,
}


async def run(lab: Lab, outside: LabClient) -> list[Handover]:
    """Measure in a lab with the cluster applied."""
    # The first VM of the cluster's pools: from now on the pools' addresses may be announced.
    ready = await cluster.made(outside, "moved", node="n1")
    found = [await _measured(lab, way, move) for way, move in _WAYS.items()]
    return [*found, Handover("vmfabric, with the guest's own pause", await _ours(lab, outside, ready.vm))]


async def _measured(lab: Lab, way: str, move: Callable[[_StandIn, Lab], Awaitable[None]]) -> Handover:
    lost: list[int] = []
    for _ in range(_REPEATS):
        guest = _StandIn(lab)
        guest.starts("n1")
        await guest.is_used("n1")
        async with pinged(lab, "core", _STAND_IN) as pings:
            await asyncio.sleep(_SETTLE_SECONDS)
            await move(guest, lab)
            await guest.is_used("n2")
            await asyncio.sleep(_SETTLE_SECONDS)
        lost.append(pings.lost)
        guest.ends("n2")
        await guest.is_announced_by()
    return Handover(way, tuple(lost))


async def _ours(lab: Lab, outside: LabClient, vm: str) -> tuple[int, ...]:
    lost: list[int] = []
    for _ in range(_REPEATS):
        outside.heard.clear()
        async with pinged(lab, "core", await cluster.found(outside, vm)) as pings:
            await asyncio.sleep(_SETTLE_SECONDS)
            await outside.publish("vm.migrate.requested", {"cluster": cluster.NAME, "vm": vm})
            await outside.wait_for(VmMigrated, vm=vm, unless=VmFailed, seconds=cluster.SECONDS)
            await asyncio.sleep(_SETTLE_SECONDS)
        lost.append(pings.lost)
    await cluster.removed(outside, vm)
    return tuple(lost)


def table(found: list[Handover]) -> str:
    """The figures for a person."""
    each = f"packets lost of {_REPEATS} moves, one every {EVERY_SECONDS * 1000:.0f} ms"
    lines = [f"{'handover':<58}{each}"]
    lines += [f"{it.way:<58}{' '.join(f'{lost:>4}' for lost in it.lost)}" for it in found]
    return "\n".join(lines)
