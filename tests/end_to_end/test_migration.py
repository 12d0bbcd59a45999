"""A VM moves to the other node while the core pings it."""

import asyncio
import sys

import pytest
from scapy.layers.l2 import ARP, Ether

from outside.cluster import CLUSTER, Cluster, address_of
from vmfabric.contract.addresses import Family
from vmfabric.contract.cluster import Virtualization
from vmfabric.contract.dataplane import LOCAL_PREFERENCE
from vmfabric.contract.errors import Code
from vmfabric.contract.guest import GuestRunning
from vmfabric.contract.iface import IfaceReady
from vmfabric.contract.route import RouteAnnounced
from vmfabric.contract.vm import VmFailed, VmMigrated, VmMigrating
from vmfabric.lab import faults
from vmfabric.lab.hosts import run_on
from vmfabric.lab.pings import pinged

pytestmark = pytest.mark.lab


async def migrate(cluster: Cluster, vm: str, node: str | None = None) -> None:
    body = {"cluster": CLUSTER, "vm": vm} | ({"node": node} if node else {})
    await cluster.outside.publish("vm.migrate.requested", body)


async def migrated(cluster: Cluster, vm: str) -> VmMigrated:
    return await cluster.outside.wait_for(VmMigrated, vm=vm, unless=VmFailed, seconds=30)


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("virtualization", list(Virtualization))
async def test_a_vm_moves_and_hardly_a_packet_is_lost(
    cluster: Cluster, family: Family, virtualization: Virtualization
) -> None:
    await cluster.apply(virtualization=virtualization)
    await cluster.request("vm1", node="n1")
    ready = await cluster.ready("vm1")
    await cluster.reachable(ready)
    async with pinged(cluster.lab, "core", address_of(ready, family)) as pings:
        await asyncio.sleep(0.5)
        await migrate(cluster, "vm1")
        moved = await migrated(cluster, "vm1")
        await asyncio.sleep(0.5)
    assert (moved.source, moved.node) == ("n1", "n2")
    assert pings.sent > 50
    lost = [line for line in pings.text if "no answer" in line]
    print(f"{pings.lost} of {pings.sent} lost")
    # The guest itself stands still for some milliseconds between its two nodes.
    assert pings.lost <= 5, f"{pings.lost} of {pings.sent} lost: {lost}"
    for allocated in ready.addresses:
        assert str(allocated.address) not in run_on(cluster.lab, "n1", "ip", "-o", "route", "show", "proto", "86")
    (last,) = cluster.outside.events(RouteAnnounced, vm="vm1", node="n2")[-1:]
    assert {route.local_preference for route in last.routes} == {LOCAL_PREFERENCE}


async def test_a_vm_goes_to_and_fro(cluster: Cluster) -> None:
    await cluster.request("vm1", node="n1")
    ready = await cluster.ready("vm1")
    for node in ("n2", "n1", "n2"):
        cluster.outside.heard.clear()
        await migrate(cluster, "vm1", node)
        moved = await migrated(cluster, "vm1")
        assert moved.node == node
        await cluster.reachable(ready)


async def test_a_guest_that_never_arrives_leaves_everything_as_it_was(cluster: Cluster) -> None:
    await cluster.request("vm1", node="n1")
    ready = await cluster.ready("vm1")
    await cluster.reachable(ready)
    faults.kill_service(cluster.lab, "node-agent", "n2")
    try:
        await migrate(cluster, "vm1", "n2")
        await cluster.outside.wait_for(VmMigrating, vm="vm1")
        await cluster.outside.publish("vm.migrate.requested", {"cluster": CLUSTER, "vm": "vm1", "node": "n2"})
        conflict = await cluster.failed("vm1")
        assert (conflict.code, conflict.step) == (Code.CONFLICT, "migrate")
        cluster.outside.heard.clear()
        await asyncio.sleep(0)
        await cluster.reachable(ready)
    finally:
        await asyncio.to_thread(faults.start_service, cluster.lab, "node-agent", "n2")
    # The agent is back before the deadline: what was asked for goes on by itself.
    await migrated(cluster, "vm1")
    await cluster.reachable(ready)


async def test_the_guest_itself_says_where_it_is_when_nobody_else_does(cluster: Cluster) -> None:
    await cluster.apply(virtualization=Virtualization.LXD)
    await cluster.request("vm1", node="n1")
    ready = await cluster.ready("vm1")
    faults.kill_service(cluster.lab, "hypervisor", "n2")
    try:
        await migrate(cluster, "vm1", "n2")
        there = await cluster.outside.wait_for(IfaceReady, vm="vm1", node="n2")
        source, target = there.guest.mac, str(address_of(ready, Family.IPV4))
        arp = Ether(src=source, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=source, psrc=target, pdst=target)
        assert there.guest_interface is not None
        send = (
            f"import socket; s = socket.socket(17, 3); s.bind(({there.guest_interface!r}, 0)); s.send({bytes(arp)!r})"
        )
        run_on(cluster.lab, "n2", "ip", "link", "set", there.guest_interface, "up")
        run_on(cluster.lab, "n2", sys.executable, "-c", send)
        await cluster.outside.wait_for(GuestRunning, vm="vm1", node="n2")
        await migrated(cluster, "vm1")
    finally:
        await asyncio.to_thread(faults.start_service, cluster.lab, "hypervisor", "n2")
    await cluster.reachable(ready)


async def test_a_vm_that_does_not_exist_cannot_move(cluster: Cluster) -> None:
    await migrate(cluster, "nobody")
    failed = await cluster.failed("nobody")
    assert (failed.code, failed.step) == (Code.UNKNOWN_VM, "migrate")


async def test_a_delete_after_a_migration_leaves_nothing(cluster: Cluster) -> None:
    await cluster.request("vm1", node="n1")
    await cluster.ready("vm1")
    await migrate(cluster, "vm1", "n2")
    await migrated(cluster, "vm1")
    await cluster.delete("vm1")
    await cluster.no_routes()
