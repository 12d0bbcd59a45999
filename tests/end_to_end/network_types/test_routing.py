"""VMs on rented servers: reachable in both ways in which providers send addresses, from one MAC address each."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

import pytest

from outside.capture import captured
from outside.cluster import RoutingCluster, address_of
from vmfabric.cli.documents import read
from vmfabric.contract.addresses import Family, link_local
from vmfabric.contract.admin import Applied
from vmfabric.contract.errors import Code
from vmfabric.contract.iface import IfaceReady
from vmfabric.lab import namespaces
from vmfabric.lab.cables import UPLINK, data_port, mac
from vmfabric.lab.debian import files
from vmfabric.lab.errors import LabError
from vmfabric.lab.hosts import answers_ping, run_on
from vmfabric.lab.routing import refused_frames
from vmfabric.lab.topology import SWITCH

pytestmark = pytest.mark.lab

NODES = ("r1", "r2")
"""The provider has a route to the first, and asks for each address of the second."""
DOCUMENT = Path(__file__).parents[3] / "docs" / "network-types.md"


async def apply(routing: RoutingCluster, kind: str, name: str, **changes: Any) -> None:
    """Apply one document of the example with other values."""
    documents = read(routing.example.read_text(), origin="example")
    spec = next(it.spec for it in documents if (it.kind, it.name) == (kind, name))
    await routing.outside.ask(f"{kind}.apply", {"spec": {**spec, **changes}}, Applied)


async def test_vms_reach_the_provider_and_each_other_and_only_the_nics_mac_address_leaves_a_server(
    routing: RoutingCluster,
) -> None:
    lab, switch = routing.lab, routing.lab.topology.namespace(SWITCH)
    before = refused_frames(lab.topology)
    async with AsyncExitStack() as stack:
        frames = {
            node: await stack.enter_async_context(captured(switch, data_port(node), "ip or ip6 or arp"))
            for node in NODES
        }
        names = {node: (f"{node}-a", f"{node}-b") for node in NODES}
        for node, vms in names.items():
            for vm in vms:
                await routing.request(vm, node=node)
        ready = {vm: await routing.ready(vm) for vms in names.values() for vm in vms}
        for one in ready.values():
            await routing.reachable(one)
        for family in Family:
            for source, target in (("r1-a", "r1-b"), ("r2-a", "r2-b"), ("r1-a", "r2-a"), ("r2-b", "r1-b")):
                assert answers_ping(lab, source, address_of(ready[target], family)), f"{source} to {target}, {family}"
    for node, lines in frames.items():
        nic = mac(lab.namespace(node), UPLINK)
        assert len(lines) >= 10
        assert [line for line in lines if f" {nic} > " not in line] == []
        assert "packets 0 " in run_on(lab, node, "nft", "list", "counter", "netdev", "vmfabric", "foreign_mac")
    assert refused_frames(lab.topology) == before
    assert set(before.values()) == {0}


async def test_a_vm_of_a_server_has_a_whole_prefix_of_what_is_routed_to_it(routing: RoutingCluster) -> None:
    lab, subnet = routing.lab, "2001:db8:3f0::/60"
    r1 = next(it.spec for it in read(routing.example.read_text(), origin="example") if it.name == "r1")
    await routing.outside.ask("network.apply", {"spec": {"name": "wide", "prefix": subnet}}, Applied)
    wide = {"name": "wide", "cluster": routing.name, "blocks": [subnet], "ipv6_length": 64, "quarantine_seconds": 0}
    await routing.outside.ask("pool.apply", {"spec": wide}, Applied)
    await apply(routing, "node", "r1", subnets=[*r1["subnets"], subnet])
    server = str(link_local(mac(lab.namespace("r1"), UPLINK)))
    run_on(lab, "provider", "ip", "route", "add", subnet, "via", server, "dev", UPLINK)
    await routing.request("vm1", node="r1", addresses=[{"family": "ipv6", "pool": "wide"}])
    (allocated,) = (await routing.ready("vm1")).addresses
    assert isinstance(allocated.prefix, IPv6Network)
    assert await routing.answers(allocated.address)
    inside = allocated.prefix[2**63 + 5]
    run_on(lab, "vm1", "ip", "address", "add", f"{inside}/128", "dev", "eth0", "nodad")
    assert await routing.answers(inside)
    await routing.request("vm2", node="r2", addresses=[{"family": "ipv6", "pool": "wide"}])
    assert (
        "r2: pool wide gives whole prefixes, and the provider asks for each address"
        in (await routing.failed("vm2")).message
    )
    await routing.delete("vm1")
    run_on(lab, "provider", "ip", "route", "delete", subnet)
    await apply(routing, "node", "r1")


async def test_a_foreign_mac_address_is_stopped_at_the_nic_and_counted_there(routing: RoutingCluster) -> None:
    """Should somebody bridge the NIC, the provider would close the port for all of the server."""

    def stopped() -> int:
        shown = run_on(routing.lab, "r1", "nft", "-j", "list", "counter", "netdev", "vmfabric", "foreign_mac")
        return sum(int(it["counter"]["packets"]) for it in json.loads(shown)["nftables"] if "counter" in it)

    before = stopped()
    run_on(routing.lab, "r1", "ip", "link", "add", "foreign0", "link", UPLINK, "type", "macvlan", "mode", "bridge")
    try:
        run_on(routing.lab, "r1", "ip", "address", "add", "203.0.113.60/26", "dev", "foreign0")
        run_on(routing.lab, "r1", "ip", "link", "set", "foreign0", "up")
        with pytest.raises(LabError):
            run_on(routing.lab, "r1", "ping", "-c", "1", "-W", "1", "-I", "foreign0", "203.0.113.1")
    finally:
        run_on(routing.lab, "r1", "ip", "link", "delete", "foreign0")
    assert stopped() > before
    assert refused_frames(routing.lab.topology)["r1"] == 0, "none has come as far as the provider's switch"


async def test_the_gateway_of_a_vm_is_its_node(routing: RoutingCluster) -> None:
    await routing.request("vm1", node="r1")
    await routing.ready("vm1")
    wired = await routing.outside.wait_for(IfaceReady, vm="vm1")
    assert [(str(it.prefix), str(it.gateway)) for it in wired.guest.addresses] == [
        ("203.0.113.64/32", "203.0.113.11"),
        ("2001:db8:301::100/128", "2001:db8:301::2"),
    ]
    (port,) = json.loads(run_on(routing.lab, "r1", "ip", "-json", "link", "show", wired.interface))
    (nic,) = json.loads(run_on(routing.lab, "r1", "ip", "-json", "link", "show", UPLINK))
    assert port["ifname"].startswith("vnet")
    assert port["master"] == "vmbr0"
    assert "master" not in nic, "the NIC is no port of the bridge"


async def test_a_migration_is_refused_and_the_vm_stays_where_it_is(routing: RoutingCluster) -> None:
    await routing.request("vm1", node="r1")
    ready = await routing.ready("vm1")
    await routing.outside.publish("vm.migrate.requested", {"cluster": routing.name, "vm": "vm1"})
    failed = await routing.failed("vm1")
    print(failed.code, failed.message)
    assert failed.code is Code.CANNOT_MIGRATE
    assert "vm1 stays on r1: the provider sends its addresses to r1" in failed.message
    await routing.reachable(ready)


async def test_a_node_without_a_free_address_is_not_chosen(routing: RoutingCluster) -> None:
    one = {"first": "203.0.113.64", "last": "203.0.113.64"}
    ranges = {
        "r1": [one, {"first": "2001:db8:301::100", "last": "2001:db8:301::1ff"}],
        "r2": [
            {"first": "203.0.113.80", "last": "203.0.113.95"},
            {"first": "2001:db8:302::100", "last": "2001:db8:302::1ff"},
        ],
    }
    await apply(routing, "pool", "rented", ranges=ranges, quarantine_seconds=0)
    await routing.request("vm1", node="r1")
    assert str(address_of(await routing.ready("vm1"), Family.IPV4)) == "203.0.113.64"
    for name in ("vm2", "vm3"):
        await routing.request(name)
        assert (await routing.ready(name)).node == "r2"
    await routing.request("vm4", node="r1")
    failed = await routing.failed("vm4")
    print(failed.code, failed.message, failed.refusals)
    assert failed.code is Code.NO_NODE_FITS


@pytest.fixture
async def ndppd(routing: RoutingCluster, tmp_path: Path) -> AsyncIterator[None]:
    """r2 without proxy entries, and ndppd with the configuration of the documentation."""
    await apply(routing, "node", "r2", upstream="routed")
    text = DOCUMENT.read_text()
    begin = text.index("    proxy eno1 {")
    configuration = tmp_path / "ndppd.conf"
    configuration.write_text(text[begin : text.index("\n\n", begin)])
    async with asyncio.timeout(10):
        while run_on(routing.lab, "r2", "ip", "-6", "neighbour", "show", "proxy"):
            await asyncio.sleep(0.1)
    yield
    await apply(routing, "node", "r2")


async def test_ndppd_answers_instead_of_the_kernels_proxy_entries(
    routing: RoutingCluster, ndppd: None, tmp_path: Path
) -> None:
    await routing.request("vm1", node="r2")
    address = address_of(await routing.ready("vm1"), Family.IPV6)
    # The provider may remember who had this address before.
    run_on(routing.lab, "provider", "ip", "-6", "neighbour", "flush", "dev", UPLINK)
    assert not await routing.answers(address, seconds=2)
    program = files("ndppd", {"ndppd": "usr/sbin/ndppd"}) / "ndppd"
    process = await asyncio.create_subprocess_exec(
        *namespaces.inside(routing.lab.namespace("r2"), str(program), "-c", str(tmp_path / "ndppd.conf"))
    )
    try:
        assert await routing.answers(address)
    finally:
        process.terminate()
        await process.wait()
        # It asks for all multicast frames, and does not take that back.
        run_on(routing.lab, "r2", "ip", "link", "set", UPLINK, "allmulticast", "off")
