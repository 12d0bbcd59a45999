"""The kernel port on a real kernel, without a process around it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import REGISTRY
from pyroute2 import netns

from vmfabric.contract.cluster import Virtualization
from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.node_agent.domain.plan import plan
from vmfabric.node_agent.kernel.links import _DOOMED_GROUP
from vmfabric.node_agent.kernel.node import NodeKernel
from vmfabric.node_agent.samples import a_vm

pytestmark = pytest.mark.lab


@pytest.fixture
async def kernel(node: Any) -> AsyncIterator[NodeKernel]:
    made = NodeKernel()
    await made._run(lambda: netns.setns(node.namespace))
    async with made:
        yield made


async def carry_out(kernel: NodeKernel, *vms: DesiredVm) -> int:
    """How many operations it took; afterwards there is nothing left to do."""
    operations = plan(vms, await kernel.read()).operations
    assert await kernel.apply(operations) == ()
    assert plan(vms, await kernel.read()).operations == ()
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
    failures = await kernel.apply(plan(vms, await kernel.read()).operations)
    assert [failure.operation.vm for failure in failures] == ["vm1"]
    assert {operation.vm for operation in plan(vms, await kernel.read()).operations} == {"vm1"}


async def test_the_settings_read_are_those_under_proc(node: Any, kernel: NodeKernel) -> None:
    await carry_out(kernel, a_vm(1))
    for interface in ("vm1_net0", "lo"):
        for name, value in (await kernel.read()).links[interface].sysctls.items():
            family, setting = name.split("/")
            path = f"/proc/sys/net/{family}/conf/{interface}/{setting}"
            assert int(node.run("cat", path)) == value, path
