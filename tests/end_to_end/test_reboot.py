"""A node boots from nothing while bus and database are away."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from chaos.pinged import pinged
from outside.cluster import CLUSTER, Cluster, address_of
from vmfabric.contract.addresses import Family, Prefix, host_prefix
from vmfabric.contract.admin import Drain
from vmfabric.contract.dataplane import (
    EVACUATED_LOCAL_PREFERENCE,
    LOCAL_PREFERENCE,
    RESTORED_LOCAL_PREFERENCE,
    RESTORED_METRIC,
)
from vmfabric.contract.iface import IfaceDrifted
from vmfabric.contract.vm import VmReady
from vmfabric.lab import faults, processes
from vmfabric.lab.hosts import bgp_routes, local_preferences, run_on

pytestmark = pytest.mark.lab

SERVERS = ("nats", "postgres")
BOOT_SECONDS = 15
"""With twenty VMs; `./vmfabric bench reboot` measures it with five hundred."""


@asynccontextmanager
async def without_servers(cluster: Cluster) -> AsyncIterator[None]:
    """The bus and the database are away while the block lasts."""
    for server in SERVERS:
        faults.kill_service(cluster.lab, server)
    try:
        yield
        programs = [cluster.lab.program(server, "control") for server in SERVERS]
        assert [processes.pid(cluster.lab.state, it) for it in programs] == [None, None]
    finally:
        for server in SERVERS:
            await asyncio.to_thread(faults.start_service, cluster.lab, server)


async def boot(cluster: Cluster) -> None:
    """n1 has its power back, and no bus."""
    await asyncio.to_thread(faults.restore_power, cluster.lab, "n1", management=False)


def prefixes_of(vms: Iterable[VmReady]) -> set[Prefix]:
    return {host_prefix(it.address) for vm in vms for it in vm.addresses}


def core_uses(cluster: Cluster, node: str, prefixes: set[Prefix], preference: int) -> bool:
    """Whether the core sends all that is for these there, and was told so with this preference."""
    routes, preferences = bgp_routes(cluster.lab, "core"), local_preferences(cluster.lab, "core")
    # An IPv6 next hop is a link-local address.
    hops = {routes.get(prefix) for prefix in prefixes if prefix.version == 4}
    return (
        prefixes <= routes.keys()
        and hops == {str(cluster.lab.topology.node(node).ipv4)}
        and {preferences.get(prefix) for prefix in prefixes} == {preference}
    )


async def until_core_uses(
    cluster: Cluster, node: str, prefixes: set[Prefix], preference: int, seconds: float = 30
) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(core_uses, cluster, node, prefixes, preference):
            await asyncio.sleep(0.05)


def routes_from_memory(cluster: Cluster) -> int:
    """How many n1 has in its kernel."""
    shown = [run_on(cluster.lab, "n1", "ip", family, "route", "show", "proto", "86") for family in ("-4", "-6")]
    return "".join(shown).count(f"metric {RESTORED_METRIC}")


async def test_a_node_that_boots_without_bus_and_database_serves_what_it_had_with_less_preference(
    cluster: Cluster,
) -> None:
    names = [f"vm{number}" for number in range(20)]
    for name in names:
        await cluster.request(name, node="n1")
    vms = [await cluster.ready(name) for name in names]
    prefixes = prefixes_of(vms)
    await until_core_uses(cluster, "n1", prefixes, LOCAL_PREFERENCE)
    async with without_servers(cluster):
        faults.cut_power(cluster.lab, "n1")
        await cluster.no_routes(seconds=15)
        await boot(cluster)
        await until_core_uses(cluster, "n1", prefixes, RESTORED_LOCAL_PREFERENCE, seconds=BOOT_SECONDS)
        assert routes_from_memory(cluster) == len(prefixes)
    faults.restore_management(cluster.lab, "n1")
    await until_core_uses(cluster, "n1", prefixes, LOCAL_PREFERENCE)
    for vm in vms:
        await cluster.reachable(vm)
    assert not cluster.outside.events(IfaceDrifted), "that a VM is still the node's is no drift"


async def test_vms_that_moved_while_the_node_was_off_keep_their_new_path_when_it_boots_without_a_bus(
    cluster: Cluster,
) -> None:
    names = [f"vm{number}" for number in range(8)]
    for name in names:
        await cluster.request(name)
    everywhere = [await cluster.ready(name) for name in names]
    vms = [vm for vm in everywhere if vm.node == "n1"]
    prefixes = prefixes_of(vms)
    faults.cut_power(cluster.lab, "n1")
    await cluster.evacuated(vms, node="n1", target="n2")
    for vm in vms:
        await cluster.reachable(vm)
    await until_core_uses(cluster, "n2", prefixes, EVACUATED_LOCAL_PREFERENCE)
    n1, n2 = (str(cluster.lab.topology.node(name).ipv4) for name in ("n1", "n2"))
    async with pinged(cluster.lab, vms[0].vm, address_of(vms[0], Family.IPV4)) as pings:
        async with without_servers(cluster):
            await boot(cluster)
            async with asyncio.timeout(BOOT_SECONDS):
                for prefix in (it for it in prefixes if it.version == 4):
                    while await asyncio.to_thread(cluster.next_hops, prefix) != {n1, n2}:
                        await asyncio.sleep(0.05)
            assert routes_from_memory(cluster) == len(prefixes)
            assert core_uses(cluster, "n2", prefixes, EVACUATED_LOCAL_PREFERENCE)
            for vm in vms:
                await cluster.reachable(vm)
        faults.restore_management(cluster.lab, "n1")
        await until_core_uses(cluster, "n2", prefixes, LOCAL_PREFERENCE)
        assert pings.answers(time.monotonic())
    assert not list(pings.lost())
    assert {hop for it in prefixes if it.version == 4 for hop in cluster.next_hops(it)} == {n2}
    await cluster.outside.ask("node.undrain", {"cluster": CLUSTER, "node": "n1"}, Drain)
