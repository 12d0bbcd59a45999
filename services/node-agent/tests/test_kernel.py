"""The kernel port on a real kernel, without a process around it."""

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from ipaddress import IPv6Address
from typing import Any

import pytest
from prometheus_client import REGISTRY
from pyroute2 import netns

from vmfabric.contract.cluster import Virtualization
from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.node_agent.domain.actual import Interest
from vmfabric.node_agent.domain.antispoof import Rule
from vmfabric.node_agent.domain.guest_rules import SHARED_CHAINS
from vmfabric.node_agent.domain.neighbour import Question
from vmfabric.node_agent.domain.operations import GuardOperation, LoadTable
from vmfabric.node_agent.domain.plan import plan
from vmfabric.node_agent.domain.setup import FORWARDING
from vmfabric.node_agent.domain.stage import Stage
from vmfabric.node_agent.kernel import nftables
from vmfabric.node_agent.kernel.links import _DOOMED_GROUP
from vmfabric.node_agent.kernel.node import NodeKernel
from vmfabric.node_agent.samples import a_vm

pytestmark = pytest.mark.lab

Inside = Callable[[str, Callable[[], socket.socket]], socket.socket]
INTEREST = Interest(sysctls=frozenset(FORWARDING))


@pytest.fixture
async def kernel(node: Any) -> AsyncIterator[NodeKernel]:
    made = NodeKernel()
    await made._run(lambda: netns.setns(node.namespace))
    async with made:
        yield made


async def carry_out(kernel: NodeKernel, *vms: DesiredVm) -> int:
    """How many operations it took; afterwards there is nothing left to do."""
    operations = plan(vms, await kernel.read(INTEREST)).operations
    assert await kernel.apply(operations) == ()
    assert plan(vms, await kernel.read(INTEREST)).operations == ()
    return len(operations)


def written() -> float:
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "vmfabric_kernel_writes_total"
    )


@pytest.mark.parametrize("virtualization", list(Virtualization))
async def test_every_step_of_a_vms_life_takes_one_pass(kernel: NodeKernel, virtualization: Virtualization) -> None:
    for presence in (Presence.WIRED, Presence.ROUTED, Presence.WIRED, Presence.ABSENT):
        vm = a_vm(1, presence=presence, virtualization=virtualization)
        assert await carry_out(kernel, vm) > 0
        before = written()
        assert await carry_out(kernel, vm) == 0
        assert written() == before


async def test_every_step_of_a_migration_takes_one_pass(node: Any, kernel: NodeKernel) -> None:
    node.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "switch")
    node.run("ip", "address", "add", "192.0.2.1/24", "dev", "uplink")
    node.run("ip", "link", "set", "uplink", "up")
    node.run("ip", "link", "set", "switch", "up")
    for presence in (
        *(Presence.WIRED, Presence.PREFERRED, Presence.ROUTED),
        *(Presence.FORWARDED, Presence.ROUTED, Presence.FORWARDED, Presence.ABSENT),
    ):
        assert await carry_out(kernel, a_vm(1, presence=presence, toward="192.0.2.2")) > 0
        leads = node.run("ip", "route", "get", "10.0.0.1", check=False)
        assert ("via 192.0.2.2" in leads) == (presence is Presence.FORWARDED)
    assert node.run("ip", "route", "show", "proto", "86") == ""


async def test_every_step_of_a_migration_of_a_prefix_takes_one_pass_wherever_its_block_leads(
    node: Any, kernel: NodeKernel
) -> None:
    node.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "switch")
    for end in ("uplink", "switch"):
        node.run("ip", "link", "set", end, "up")
    node.run("ip", "address", "add", "2001:db8:ffff::1/64", "dev", "uplink", "nodad")
    node.run("ip", "route", "add", "2001:db8::/32", "via", "2001:db8:ffff::9", "dev", "uplink")
    for presence in (
        *(Presence.PREFERRED, Presence.ROUTED, Presence.FORWARDED, Presence.ROUTED, Presence.FORWARDED),
        *(Presence.ABSENT, Presence.FORWARDED, Presence.ROUTED, Presence.ABSENT),
    ):
        vm = a_vm(
            1,
            presence=presence,
            addresses=("2001:db8:0:1::1",),
            delegated=("2001:db8:0:1::/64",),
            toward="2001:db8:ffff::2",
        )
        assert await carry_out(kernel, vm) > 0
        leads = node.run("ip", "route", "get", "2001:db8:0:1::77", check=False)
        way = {Presence.FORWARDED: "via 2001:db8:ffff::2", Presence.ABSENT: "via 2001:db8:ffff::9"}
        assert way.get(presence, "via 2001:db8:0:1::1 dev vm1_net0") in leads
    assert node.run("ip", "-6", "route", "show", "proto", "86") == ""


async def test_a_guest_that_asks_as_many_is_heard_too_seldom_to_fill_the_nodes_table_of_neighbours(
    node: Any, kernel: NodeKernel, inside: Inside
) -> None:
    vm = a_vm(1, addresses=("2001:db8:0:1::1",), delegated=("2001:db8:0:1::/64",), virtualization=Virtualization.LXD)
    await carry_out(kernel, vm)
    namespace = node.guest(vm, configured=False)
    before = node.counters()
    with inside(namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as guest:
        guest.bind(("vm1_eth0", 0))
        for number in range(500):
            source = IPv6Address("2001:db8:0:1::") + 1000 + number
            guest.send(Question(IPv6Address("fe80::1"), source).frame(vm.mac))
    dropped = node.counters()["dropped_neighbour"] - before["dropped_neighbour"]
    known = node.run("ip", "-6", "neighbour", "show", "dev", "vm1_net0").splitlines()
    assert 20 < len(known) < 100
    assert dropped > 400


async def test_many_are_deleted_at_once_and_a_stranger_in_our_group_stays(node: Any, kernel: NodeKernel) -> None:
    numbers = range(1, 21)
    await carry_out(kernel, *(a_vm(number) for number in numbers))
    await carry_out(kernel, *(a_vm(number, presence=Presence.ABSENT) for number in numbers))
    assert set(node.links()) == {"lo"}
    await carry_out(kernel, *(a_vm(number) for number in numbers))
    node.run("ip", "link", "add", "stranger0", "type", "veth", "peer", "name", "stranger1")
    node.run("ip", "link", "set", "stranger0", "group", str(_DOOMED_GROUP))
    await carry_out(kernel, *(a_vm(number, presence=Presence.ABSENT) for number in numbers))
    assert set(node.links()) == {"lo", "stranger0", "stranger1"}


async def test_a_refused_operation_stops_its_vm_only(node: Any, kernel: NodeKernel) -> None:
    # The guest's end cannot have its name, so the first VM's veth cannot be made.
    node.run("ip", "link", "add", "vm1_eth0", "type", "veth", "peer", "name", "stranger1")
    vms = [a_vm(number, virtualization=Virtualization.LXD) for number in (1, 2)]
    failures = await kernel.apply(plan(vms, await kernel.read(INTEREST)).operations)
    assert [failure.operation.vm for failure in failures] == ["vm1"]
    assert {operation.vm for operation in plan(vms, await kernel.read(INTEREST)).operations} == {"vm1"}


async def test_a_port_whose_rules_are_refused_stops_no_other_and_is_found_quickly(
    node: Any, kernel: NodeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    vms = [a_vm(number) for number in range(1, 65)]
    operations = plan(vms, await kernel.read(INTEREST)).operations
    before = [operation for operation in operations if operation.stage < Stage.GUARD]
    assert await kernel.apply(before) == ()
    node.run("ip", "link", "del", "vm7_net0")
    transactions: list[int] = []
    load = nftables.apply

    def counted(batch: Sequence[GuardOperation]) -> None:
        transactions.append(len(batch))
        load(batch)

    monkeypatch.setattr(nftables, "apply", counted)
    failures = await kernel.apply(operations[len(before) :])
    assert [failure.operation.vm for failure in failures] == ["vm7"]
    assert len(transactions) <= 2 * 7 + 1
    ups = {name for name, link in node.links().items() if "UP" in link["flags"]} - {"lo"}
    assert ups == {f"vm{number}_net0" for number in range(1, 65)} - {"vm7_net0"}


async def test_without_nft_no_link_comes_up_and_it_is_asked_for_once(
    node: Any, kernel: NodeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    vms = [a_vm(number) for number in range(1, 4)]
    operations = plan(vms, await kernel.read(INTEREST)).operations
    monkeypatch.setenv("PATH", "/nowhere")
    failures = await kernel.apply(operations)
    monkeypatch.undo()
    assert {failure.operation.vm for failure in failures} == {None, "vm1", "vm2", "vm3"}
    assert all("nftables" in failure.reason for failure in failures)
    assert not [name for name, link in node.links().items() if "UP" in link["flags"] and name != "lo"]


async def test_a_link_does_not_come_up_while_the_shared_rules_cannot_be_loaded(node: Any, kernel: NodeKernel) -> None:
    await carry_out(kernel, a_vm(1))
    node.run("ip", "link", "set", "vm1_net0", "down")
    node.run("nft", "flush chain netdev vmfabric guest_arp; insert rule netdev vmfabric guest accept")
    operations = plan([a_vm(1)], await kernel.read(INTEREST)).operations
    assert "set vm1_net0 up" in map(str, operations)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SHARED_CHAINS, "guest_arp", (Rule("no rule of nft", "what is this"),))
        failures = await kernel.apply(operations)
    assert [type(failure.operation) for failure in failures] == [LoadTable]
    assert "UP" not in node.links()["vm1_net0"]["flags"]
    await carry_out(kernel, a_vm(1))
    assert "UP" in node.links()["vm1_net0"]["flags"]


async def test_the_settings_read_are_those_under_proc(node: Any, kernel: NodeKernel) -> None:
    await carry_out(kernel, a_vm(1))
    for interface in ("vm1_net0", "lo"):
        for name, value in (await kernel.read(INTEREST)).links[interface].sysctls.items():
            family, setting = name.split("/")
            path = f"/proc/sys/net/{family}/conf/{interface}/{setting}"
            assert int(node.run("cat", path)) == value, path
