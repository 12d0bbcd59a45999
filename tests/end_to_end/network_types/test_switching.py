"""VMs of a physical network: reachable from everybody on it, and moved without its routers noticing."""

import asyncio
import json

import pytest

from outside.capture import captured
from outside.cluster import SwitchingCluster, address_of
from vmfabric.contract.addresses import Family
from vmfabric.contract.iface import IfaceReady
from vmfabric.contract.vm import VmFailed, VmMigrated
from vmfabric.lab import faults, namespaces
from vmfabric.lab.cables import data_port
from vmfabric.lab.hosts import answers_ping, run_on
from vmfabric.lab.lab import Lab
from vmfabric.lab.pings import pinged
from vmfabric.lab.programs import run
from vmfabric.lab.switching import BRIDGE
from vmfabric.lab.topology import SWITCH, Node

pytestmark = pytest.mark.lab


def port_of(lab: Lab, mac: str) -> str | None:
    """Where the physical switch has learnt a MAC address."""
    switch = lab.topology.namespace(SWITCH)
    rows = json.loads(run(*namespaces.inside(switch, "bridge", "-json", "fdb", "show", "br", BRIDGE)))
    return next((str(row["ifname"]) for row in rows if row["mac"] == mac), None)


def default_routes(lab: Lab, node: str) -> str:
    return "".join(run_on(lab, node, "ip", family, "route", "show", "default") for family in ("-4", "-6"))


async def test_a_node_stays_reachable_while_its_nic_moves_into_the_bridge(switching: SwitchingCluster) -> None:
    lab, node = switching.lab, switching.lab.topology.node("s1")
    faults.cut_power(lab, "s1")
    faults.restore_power(lab, "s1", services=())
    assert default_routes(lab, "s1").count("dev eno1") == 2
    assert await switching.answers(node.ipv4)
    async with pinged(lab, "gw", node.ipv4) as pings:
        await asyncio.to_thread(faults.start_service, lab, "node-agent", "s1")
        async with asyncio.timeout(20):
            while default_routes(lab, "s1").count("dev vmbr0") < 2:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
    await asyncio.to_thread(faults.start_service, lab, "hypervisor", "s1")
    print(f"{pings.lost} of {pings.sent} lost")
    assert pings.lost <= 30
    assert "master vmbr0" in run_on(lab, "s1", "ip", "link", "show", "dev", "eno1")
    assert await switching.answers(node.ipv4)
    assert isinstance(node, Node)
    assert await switching.answers(node.ipv6)


async def test_vms_of_two_nodes_reach_each_other_and_the_gateway_in_both_families(
    switching: SwitchingCluster,
) -> None:
    lab = switching.lab
    for vm, node in (("vm1", "s1"), ("vm2", "s2")):
        await switching.request(vm, node=node)
    first, second = [await switching.ready(vm) for vm in ("vm1", "vm2")]
    await switching.reachable(first)
    await switching.reachable(second)
    part = lab.topology.switching
    assert part is not None
    for family, gateway in ((Family.IPV4, part.gateway.ipv4), (Family.IPV6, part.gateway.ipv6)):
        assert answers_ping(lab, "vm1", address_of(second, family))
        assert answers_ping(lab, "vm2", address_of(first, family))
        assert answers_ping(lab, "vm1", gateway)
    (given,) = switching.outside.events(IfaceReady, vm="vm1")
    assert given.interface.startswith("vnet")
    assert {address.prefix.network.prefixlen for address in given.guest.addresses} == {24, 64}


@pytest.mark.parametrize("family", list(Family))
async def test_a_vm_moves_to_the_other_node_and_the_switch_learns_it_there(
    switching: SwitchingCluster, family: Family
) -> None:
    await switching.request("vm1", node="s1")
    ready = await switching.ready("vm1")
    await switching.reachable(ready)
    (given,) = switching.outside.events(IfaceReady, vm="vm1")
    assert port_of(switching.lab, given.guest.mac) == data_port("s1")
    arriving = captured(switching.lab.namespace("s2"), "any", "arp or icmp6")
    wire = captured(switching.lab.topology.namespace(SWITCH), data_port("s2"), "arp or icmp6")
    async with arriving as frames, wire as announced, pinged(switching.lab, "gw", address_of(ready, family)) as pings:
        await asyncio.sleep(0.5)
        await switching.outside.publish("vm.migrate.requested", {"cluster": switching.name, "vm": "vm1"})
        moved = await switching.outside.wait_for(VmMigrated, vm="vm1", unless=VmFailed, seconds=30)
        await asyncio.sleep(0.5)
    assert (moved.source, moved.node) == ("s1", "s2")
    print(f"{family}: {pings.lost} of {pings.sent} lost, {pings.lost * 10} ms")
    assert port_of(switching.lab, given.guest.mac) == data_port("s2")
    for said in (f"who-has {address_of(ready, Family.IPV4)} tell", f"tgt is {address_of(ready, Family.IPV6)}"):
        assert any("vnet" in frame and said in frame for frame in frames), f"the guest itself has not said {said}"
        assert sum(said in frame for frame in announced) > 1, (
            f"only the guest has said {said}, once, and not the node"
        )
    # The guest itself stands still for some milliseconds between its two nodes.
    assert pings.lost <= 10, [line for line in pings.text if "no answer" in line]
    assert not any("vnet" in line for line in run_on(switching.lab, "s1", "ip", "-brief", "link").splitlines())


async def test_what_somebody_takes_out_of_the_bridge_comes_back(switching: SwitchingCluster) -> None:
    await switching.request("vm1", node="s1")
    ready = await switching.ready("vm1")
    await switching.reachable(ready)
    (given,) = switching.outside.events(IfaceReady, vm="vm1")
    for port in (given.interface, "eno1"):
        run_on(switching.lab, "s1", "ip", "link", "set", port, "nomaster")
        await switching.reachable(ready)
    assert await switching.answers(switching.lab.topology.node("s1").ipv4)
