"""A VM has a whole IPv6 prefix: all of it reaches the guest, wherever that is."""

import asyncio
from ipaddress import IPv6Network

import pytest

from outside.cluster import CLUSTER, Cluster
from vmfabric.contract.vm import VmFailed, VmMigrated
from vmfabric.lab.hosts import answers_ping, bgp_routes, run_on
from vmfabric.lab.pings import pinged

pytestmark = pytest.mark.lab

CORE = "fd00:fab::fe"
WISHES = [{"family": "ipv6", "pool": "wide"}]


async def test_all_of_a_prefix_reaches_its_vm_and_follows_it_and_the_node_asks_no_neighbour_for_it(
    cluster: Cluster,
) -> None:
    lab = cluster.lab
    await cluster.request("vm1", node="n1", addresses=WISHES)
    ready = await cluster.ready("vm1")
    (allocated,) = ready.addresses
    prefix = allocated.prefix
    assert isinstance(prefix, IPv6Network)
    assert (prefix.prefixlen, allocated.address) == (64, prefix[1])
    await cluster.reachable(ready)
    assert set(bgp_routes(lab, "core")) == {prefix}
    inside = prefix[2**63 + 5]
    add_inside = ("ip", "address", "add", f"{inside}/128", "dev", "eth0", "nodad")
    run_on(lab, "vm1", *add_inside)
    assert await cluster.answers(inside)
    assert " 0% packet loss" in run_on(lab, "vm1", "ping", "-c", "3", "-i", "0.1", "-I", str(inside), CORE)
    for number in range(100, 120):
        answers_ping(lab, "core", prefix[number], seconds=0.01)
    neighbours = run_on(lab, "n1", "ip", "-6", "neighbour", "show", "dev", "vm1_net0").splitlines()
    asked = {line.split()[0] for line in neighbours if not line.startswith("fe80:")}
    assert str(allocated.address) in asked
    assert asked <= {str(allocated.address), str(inside)}, "the one that leads there, and who has asked"

    async with pinged(lab, "core", allocated.address) as pings:
        await cluster.outside.publish("vm.migrate.requested", {"cluster": CLUSTER, "vm": "vm1", "node": "n2"})
        moved = await cluster.outside.wait_for(VmMigrated, vm="vm1", unless=VmFailed, seconds=30)
        await asyncio.sleep(0.5)
    assert moved.addresses == ready.addresses
    assert pings.lost <= 5, pings.text
    run_on(lab, "vm1", *add_inside)  # the guest of the lab is made anew there
    assert await cluster.answers(inside)
    assert str(prefix) not in run_on(lab, "n1", "ip", "-6", "route", "show", "table", "all")
    await cluster.delete("vm1")
    await cluster.no_routes()
