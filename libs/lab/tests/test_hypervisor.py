"""The stand-in for a hypervisor, on a node of the lab, with events made by hand."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface

import pytest

from vmfabric.contract.guest import GuestRunning
from vmfabric.contract.iface import GuestAddress, GuestNetwork, IfaceReady, IfaceRemoved
from vmfabric.contract.model import Event
from vmfabric.lab import faults, guests, namespaces
from vmfabric.lab import making as labs
from vmfabric.lab.client import LabClient, connect
from vmfabric.lab.hosts import answers_ping, run_on
from vmfabric.lab.lab import Lab
from vmfabric.lab.programs import run
from vmfabric.lab.state import State
from vmfabric.lab.topology import Topology

pytestmark = pytest.mark.lab

ADDRESS4, ADDRESS6 = IPv4Address("198.51.100.9"), IPv6Address("2001:db8:100::9")
MAC = "02:00:00:00:00:09"


@pytest.fixture
async def outside(data_centre: Lab) -> AsyncIterator[LabClient]:
    await asyncio.to_thread(faults.start_service, data_centre, "hypervisor", "n1")
    async with connect(data_centre.nats_url) as client:
        yield client
    faults.kill_service(data_centre, "hypervisor", "n1")
    for guest in guests.recorded(data_centre.state, data_centre.topology):
        guests.remove(guest)


def wire(lab: Lab, vm: str, *, tap: bool) -> IfaceReady:
    """What a node-agent does before it says `iface.ready`."""
    node, interface = lab.namespace("n1"), f"{vm}_net0"
    if tap:
        run("ip", "-n", node, "tuntap", "add", interface, "mode", "tap")
    else:
        run("ip", "-n", node, "link", "add", interface, "type", "veth", "peer", "name", f"{vm}_g0")
    run("ip", "-n", node, "addr", "add", "169.254.0.1/32", "dev", interface)
    run("ip", "-n", node, "addr", "add", "fe80::1/64", "dev", interface, "nodad")
    run("ip", "-n", node, "link", "set", interface, "up")
    for address in (ADDRESS4, ADDRESS6):
        run("ip", "-n", node, "route", "add", str(address), "dev", interface)
    return IfaceReady(
        cluster="msk",
        vm=vm,
        node="n1",
        generation=1,
        interface=interface,
        guest_interface=None if tap else f"{vm}_g0",
        guest=GuestNetwork(
            mac=MAC,
            mtu=1400,
            addresses=(
                GuestAddress(prefix=ip_interface(ADDRESS4), gateway=ip_address("169.254.0.1")),
                GuestAddress(prefix=ip_interface(ADDRESS6), gateway=ip_address("fe80::1")),
            ),
        ),
    )


def unwire(lab: Lab, vm: str) -> IfaceRemoved:
    run("ip", "-n", lab.namespace("n1"), "link", "delete", f"{vm}_net0")
    return IfaceRemoved(cluster="msk", vm=vm, node="n1", generation=1)


async def say(outside: LabClient, event: Event) -> None:
    await outside.publish(event.subject(), event.model_dump_json().encode())


async def until_gone(namespace: str) -> None:
    async with asyncio.timeout(10):
        while namespaces.exists(namespace):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("tap", [True, False], ids=["tap", "veth"])
async def test_a_guest_runs_as_the_event_says_and_goes_with_its_interface(
    data_centre: Lab, outside: LabClient, tap: bool
) -> None:
    vm = "tapped" if tap else "paired"
    await say(outside, wire(data_centre, vm, tap=tap))
    await outside.wait_for(GuestRunning, vm=vm, node="n1")

    assert await asyncio.to_thread(answers_ping, data_centre, "n1", ADDRESS4)
    assert await asyncio.to_thread(answers_ping, data_centre, "n1", ADDRESS6)
    link = run_on(data_centre, vm, "ip", "link", "show", "eth0")
    assert MAC in link
    assert "mtu 1400" in link

    namespace = data_centre.namespace(vm)
    await say(outside, unwire(data_centre, vm))
    await until_gone(namespace)


@pytest.mark.parametrize("tap", [True, False], ids=["tap", "veth"])
async def test_a_guest_answers_again_after_its_hypervisor_was_killed(
    data_centre: Lab, outside: LabClient, tap: bool
) -> None:
    vm = "again1" if tap else "again2"
    await say(outside, wire(data_centre, vm, tap=tap))
    await outside.wait_for(GuestRunning, vm=vm)
    await asyncio.to_thread(faults.kill_service, data_centre, "hypervisor", "n1")
    heard = len(outside.heard)
    await asyncio.to_thread(faults.start_service, data_centre, "hypervisor", "n1")
    await outside.wait_for(GuestRunning, vm=vm, after=heard)
    assert await asyncio.to_thread(answers_ping, data_centre, "n1", ADDRESS4)
    namespace = data_centre.namespace(vm)
    await say(outside, unwire(data_centre, vm))
    await until_gone(namespace)


async def test_a_late_event_of_an_interface_that_is_gone_starts_no_guest(
    data_centre: Lab, outside: LabClient
) -> None:
    late = wire(data_centre, "late", tap=True)
    await say(outside, unwire(data_centre, "late"))
    await say(outside, late)
    await say(outside, wire(data_centre, "next", tap=True))
    await outside.wait_for(GuestRunning, vm="next")
    assert not outside.events(GuestRunning, vm="late")
    assert "late_net0" not in run("ip", "-n", data_centre.namespace("n1"), "-brief", "link")
    await say(outside, unwire(data_centre, "next"))


async def test_down_takes_guests_along_though_their_hypervisor_was_killed(topology: Topology, state: State) -> None:
    lab = await asyncio.to_thread(labs.up, topology, state, with_services=False)
    await asyncio.to_thread(faults.start_service, lab, "hypervisor", "n1")
    async with connect(lab.nats_url) as outside:
        await say(outside, wire(lab, "orphan", tap=True))
        await outside.wait_for(GuestRunning, vm="orphan")
    namespace = lab.namespace("orphan")
    busy = await asyncio.create_subprocess_exec(*namespaces.inside(namespace, "sleep", "600"))
    faults.kill_service(lab, "hypervisor", "n1")

    await asyncio.to_thread(labs.down, state)
    assert not namespaces.exists(namespace)
    async with asyncio.timeout(5):
        assert await busy.wait() != 0, "what ran in the guest has ended with it"
