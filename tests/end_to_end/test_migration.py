"""A VM moves to the other node while the core pings it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from scapy.layers.l2 import ARP, Ether

from outside.cluster import CLUSTER, Cluster, address_of
from vmfabric.contract.addresses import Family
from vmfabric.contract.admin import Drain
from vmfabric.contract.cluster import Virtualization
from vmfabric.contract.dataplane import LOCAL_PREFERENCE
from vmfabric.contract.errors import Code
from vmfabric.contract.guest import GuestRunning
from vmfabric.contract.iface import IfaceReady
from vmfabric.contract.node import NodeLost
from vmfabric.contract.route import RouteAnnounced
from vmfabric.contract.vm import VmFailed, VmMigrated, VmMigrating, VmReady
from vmfabric.lab import faults
from vmfabric.lab.hosts import run_on
from vmfabric.lab.monitor import routes_deleted
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


@asynccontextmanager
async def a_target_without_its_guest(cluster: Cluster) -> AsyncIterator[VmReady]:
    """A VM that answers on n1, while n2 is wired for it and its guest does not come."""
    await cluster.request("vm1", node="n1")
    ready = await cluster.ready("vm1")
    await cluster.reachable(ready)
    faults.kill_service(cluster.lab, "hypervisor", "n2")
    try:
        await migrate(cluster, "vm1", "n2")
        await cluster.outside.wait_for(IfaceReady, vm="vm1", node="n2")
        yield ready
    finally:
        await asyncio.to_thread(faults.start_service, cluster.lab, "hypervisor", "n2")
    assert "vm1" not in run_on(cluster.lab, "n2", "ip", "-o", "link")
    await cluster.reachable(ready)


async def test_a_guest_that_never_arrives_leaves_everything_as_it_was(cluster: Cluster) -> None:
    """The tests' lab waits 20 s for it (VMFABRIC_MIGRATION_SECONDS)."""
    async with a_target_without_its_guest(cluster) as ready:
        async with pinged(cluster.lab, "core", ready.addresses[0].address) as pings:
            failed = await cluster.failed("vm1")
        assert (failed.code, failed.step) == (Code.STEP_TIMED_OUT, "migrate")
        assert "vm1 is on n1 as before, nothing of it is left on n2" in failed.message
        assert pings.sent > 500
        assert pings.lost == 0
    cluster.outside.heard.clear()
    await migrate(cluster, "vm1", "n2")
    await migrated(cluster, "vm1")


async def test_a_migration_is_asked_for_twice_and_called_back(cluster: Cluster) -> None:
    async with a_target_without_its_guest(cluster):
        (begun,) = cluster.outside.events(VmMigrating, vm="vm1")
        await migrate(cluster, "vm1", "n2")
        async with asyncio.timeout(10):
            while cluster.outside.events(VmMigrating, vm="vm1") != [begun, begun]:
                await asyncio.sleep(0.05)
        await migrate(cluster, "vm1", "n1")
        failed = await cluster.failed("vm1")
        assert (failed.code, failed.step) == (Code.CANCELLED, "migrate")


async def test_a_target_that_dies_leaves_the_vm_on_its_source(cluster: Cluster) -> None:
    lab = cluster.lab
    async with a_target_without_its_guest(cluster) as ready:
        faults.cut_power(lab, "n2")
        try:
            async with pinged(lab, "core", ready.addresses[0].address) as pings:
                await cluster.outside.wait_for(NodeLost, node="n2", seconds=30)
                fenced = {"cluster": CLUSTER, "node": "n2", "fence": "power-cut"}
                await cluster.outside.ask("node.evacuate", fenced, Drain)
                failed = await cluster.failed("vm1")
            assert (failed.code, failed.step) == (Code.NODE_LOST, "migrate")
            assert pings.lost == 0
        finally:
            await asyncio.to_thread(faults.restore_power, lab, "n2", services=("node-agent", "bgp-announcer"))
            await cluster.settled()
            await cluster.outside.ask("node.undrain", {"cluster": CLUSTER, "node": "n2"}, Drain)


async def test_whatever_is_killed_meanwhile_the_core_has_a_route_at_every_moment(cluster: Cluster) -> None:
    """And the migration comes to its end. Where the guest runs already, packets wait for who was killed."""
    lab = cluster.lab
    await cluster.request("vm1", node="n1")
    ready = await cluster.ready("vm1")
    await cluster.reachable(ready)
    killed = [("scheduler", "control"), ("ipam", "control"), ("nats", "control"), ("postgres", "control")]
    killed += [(service, node) for node in ("n1", "n2") for service in ("node-agent", "bgp-announcer")]
    with routes_deleted(lab, "core") as deleted:
        for number, (service, host) in enumerate(killed):
            target = ("n2", "n1")[number % 2]
            cluster.outside.heard.clear()
            await migrate(cluster, "vm1", target)
            await cluster.outside.wait_for(IfaceReady, vm="vm1", node=target)
            faults.crash_service(lab, service, host)
            await cluster.moved("vm1", target)
            await cluster.settled()
            await cluster.reachable(ready)
    assert deleted == []


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
