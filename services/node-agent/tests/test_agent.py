"""What the agent says, and when."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest
import yaml

from vmfabric.contract.addresses import parse_host
from vmfabric.contract.dataplane import RESTORED_METRIC, ROUTE_METRIC
from vmfabric.contract.desired import DesiredNode, DesiredPools, DesiredVm, Presence, Switched
from vmfabric.contract.envelope import Trace
from vmfabric.contract.errors import Code, TryAgain
from vmfabric.contract.guest_config import GuestConfigForm
from vmfabric.contract.iface import IfaceDrifted, IfaceReady, IfaceRemoved
from vmfabric.contract.model import Event
from vmfabric.contract.names import VmName
from vmfabric.node_agent.agent import Agent
from vmfabric.node_agent.domain.actual import Actual, Held, HeldAddress, HeldRoute, Interest
from vmfabric.node_agent.domain.move_journal import begun
from vmfabric.node_agent.domain.naming import BRIDGE_ALIAS
from vmfabric.node_agent.domain.operations import LoadGuard, Operation
from vmfabric.node_agent.ports import KernelUnreadableError
from vmfabric.node_agent.samples import A_MOMENT, a_switching_node, a_vm
from vmfabric.node_agent.simulated import RefusedError, SimulatedKernel, an_uplink
from vmfabric.node_agent.uplink import UplinkMove
from vmfabric.reconcile.loop import Dirty
from vmfabric.runtime.desired import Revised
from vmfabric.runtime.snapshot import Confirmations, save

EVERYTHING = Dirty(frozenset(), all=True)


@dataclass
class View:
    vms: dict[VmName, Revised[DesiredVm]] = field(default_factory=dict)
    complete: bool = True
    node: Revised[DesiredNode] | None = None
    pools: Revised[DesiredPools] | None = None
    revision: int = 0
    remembered: frozenset[VmName] = frozenset()
    snapshot: dict[VmName, Revised[DesiredVm]] = field(default_factory=dict)

    def save(self) -> None:
        self.snapshot = dict(self.vms)

    def want(self, *vms: DesiredVm) -> None:
        for vm in vms:
            self.revision += 1
            self.vms[vm.vm] = Revised(self.revision, vm)


@dataclass
class Published:
    events: list[Event] = field(default_factory=list)
    connected: bool = True

    async def publish(self, event: Event, trace: Trace) -> None:  # noqa: ARG002  # a Publisher's signature
        if not self.connected:
            raise TryAgain(Code.INTERNAL, "there is no connection")
        self.events.append(event)

    def take(self) -> list[Event]:
        events, self.events = self.events, []
        return events


@dataclass
class Node:
    directory: Path
    view: View = field(default_factory=View)
    kernel: SimulatedKernel = field(default_factory=SimulatedKernel)
    published: Published = field(default_factory=Published)
    agent: Agent = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.agent = Agent(
            cluster="msk",
            node="n1",
            view=self.view,
            kernel=self.kernel,
            publisher=self.published,
            confirmations=Confirmations(self.directory / "confirmed.json"),
            uplink=UplinkMove(self.kernel, self.directory / "uplink.json", lambda: A_MOMENT),
        )

    async def step(self, *keys: str) -> list[Event]:
        await self.agent.step(Dirty(frozenset(keys), all=True))
        return self.published.take()


class KilledError(Exception):
    """As by a signal: nothing that comes after it happens."""


def _applied_and_killed(kernel: SimulatedKernel) -> Callable[[Sequence[Operation]], Awaitable[None]]:
    async def apply(operations: Sequence[Operation]) -> None:
        for operation in operations:
            kernel.carry_out(operation)
        raise KilledError

    return apply


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_a_wired_vm_is_said_to_be_ready_once(node: Node) -> None:
    node.view.want(a_vm(1))
    [ready] = await node.step()
    assert isinstance(ready, IfaceReady)
    assert (ready.interface, ready.guest_interface) == ("vm1_net0", None)
    assert [(str(it.prefix), str(it.gateway)) for it in ready.guest.addresses] == [
        ("10.0.0.1/32", "169.254.0.1"),
        ("2001:db8::1/128", "fe80::1"),
    ]
    assert await node.step() == []


async def test_a_guest_is_told_of_the_nameservers_in_facts_and_in_its_document(node: Node) -> None:
    servers = (parse_host("192.0.2.53"), parse_host("2001:db8::53"))
    node.view.want(a_vm(1, guest_config=GuestConfigForm.CLOUD_INIT_V2).model_copy(update={"nameservers": servers}))
    [ready] = await node.step()
    assert isinstance(ready, IfaceReady)
    assert ready.guest.nameservers == servers
    assert ready.guest_config is not None
    assert yaml.safe_load(ready.guest_config.document)["ethernets"]["eth0"]["nameservers"] == {
        "addresses": ["192.0.2.53", "2001:db8::53"]
    }


async def test_what_is_gone_is_said_to_be_gone_although_the_node_itself_is_not_right(node: Node) -> None:
    node.view.node = Revised(1, a_switching_node(uplink=None))  # there is no bridge of the operator's
    wiring = Switched(bridge="vmbr0")
    node.view.want(a_vm(1, wiring=wiring), a_vm(2, wiring=wiring, presence=Presence.ABSENT))
    assert [type(event) for event in await node.step()] == [IfaceRemoved]
    beat = node.agent.heartbeat()
    assert beat is not None
    assert beat.problem is not None
    assert "vmbr0" in beat.problem


async def test_an_agent_that_a_move_has_cut_off_from_the_bucket_takes_it_back_before_it_knows_more(
    node: Node,
) -> None:
    default = HeldRoute(ip_network("0.0.0.0/0"), parse_host("192.0.2.254"))
    has = Held((HeldAddress(ip_interface("192.0.2.1/24")),), (default,))
    long_ago = replace(A_MOMENT, since_boot=1.0)
    late = begun(a_switching_node(), "uplink", has, long_ago, was_confirmed=False)
    assert save(node.directory / "uplink.json", late)
    uplink = an_uplink(ip_interface("192.0.2.1/24"))
    node.kernel.uplinks = {"uplink": replace(uplink, master="vmbr0")}
    node.kernel.links = {"vmbr0": replace(uplink, index=2, name="vmbr0", kind="bridge", alias=BRIDGE_ALIAS)}
    node.kernel.holdings = {"vmbr0": has}
    node.start()
    node.view.complete = False
    node.view.want(a_vm(1))
    assert await node.step() == []
    assert node.kernel.uplinks["uplink"].master is None
    assert node.kernel.holdings["uplink"] == has
    assert node.kernel.links == {}


async def test_a_heartbeat_says_what_is_in_the_way_of_which_vm_until_it_is_out_of_the_way(node: Node) -> None:
    stranger = replace(an_uplink(ip_interface("192.0.2.1/24")), name="vm1_net0", index=50)
    node.kernel.links["vm1_net0"] = stranger
    node.view.want(a_vm(1), a_vm(2))
    await node.step()
    beat = node.agent.heartbeat()
    assert beat is not None
    assert list(beat.vm_problems) == ["vm1"]
    assert "interface vm1_net0 should be the VM's, but another one has this name" in beat.vm_problems["vm1"]
    del node.kernel.links["vm1_net0"]
    await node.step()
    beat = node.agent.heartbeat()
    assert beat is not None
    assert beat.vm_problems == {}


async def test_the_same_value_asked_for_again_is_answered_again(node: Node) -> None:
    node.view.want(a_vm(1))
    await node.step()
    node.view.want(a_vm(1))
    writes = node.kernel.writes
    assert [type(event) for event in await node.step()] == [IfaceReady]
    assert node.kernel.writes == writes


async def test_a_pass_with_nothing_to_do_writes_nothing(node: Node) -> None:
    node.view.want(a_vm(1), a_vm(2, presence=Presence.WIRED), a_vm(3, presence=Presence.ABSENT))
    await node.step()
    writes = node.kernel.writes
    saved = (node.directory / "confirmed.json").stat().st_mtime_ns
    assert await node.step() == []
    assert node.kernel.writes == writes
    assert (node.directory / "confirmed.json").stat().st_mtime_ns == saved


async def test_a_vm_that_was_never_here_is_said_to_be_removed(node: Node) -> None:
    node.view.want(a_vm(1, presence=Presence.ABSENT))
    assert [type(event) for event in await node.step()] == [IfaceRemoved]
    assert node.kernel.links == {}


async def test_absence_is_in_the_snapshot_before_it_is_said(node: Node) -> None:
    node.view.want(a_vm(1))
    await node.step()
    node.view.want(a_vm(1, presence=Presence.ABSENT))
    node.published.connected = False
    assert await node.step() == []
    assert node.view.snapshot == node.view.vms


async def test_a_restart_with_nothing_to_do_says_and_writes_nothing(node: Node) -> None:
    node.view.want(a_vm(1))
    await node.step()
    writes = node.kernel.writes
    node.start()
    assert await node.step() == []
    assert node.kernel.writes == writes


async def test_a_link_that_was_made_anew_is_said_to_be_ready_again(node: Node) -> None:
    node.view.want(a_vm(1), a_vm(2))
    await node.step()
    node.kernel.delete_link("vm1_net0")
    drifted, ready = await node.step()
    assert isinstance(drifted, IfaceDrifted)
    assert drifted.vms == ("vm1",)
    assert "create TAP vm1_net0" in drifted.repaired
    assert isinstance(ready, IfaceReady)
    assert ready.vm == "vm1"


async def test_a_link_made_anew_is_said_to_be_ready_even_if_the_agent_is_killed_right_after(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.view.want(a_vm(1))
    await node.step()
    node.kernel.delete_link("vm1_net0")
    with monkeypatch.context() as patch:
        patch.setattr(node.kernel, "apply", _applied_and_killed(node.kernel))
        with pytest.raises(KilledError):
            await node.step()
    assert "vm1_net0" in node.kernel.links
    node.start()
    assert [type(event) for event in await node.step()] == [IfaceReady]


async def test_drift_of_many_vms_fits_into_messages(node: Node) -> None:
    vms = [a_vm(number, name=f"a-customer-with-quite-a-long-name-{number}") for number in range(1, 1501)]
    node.view.want(*vms)
    await node.step()
    for interface in list(node.kernel.links):
        node.kernel.delete_link(interface)
    drifts = [event for event in await node.step() if isinstance(event, IfaceDrifted)]
    assert {vm for event in drifts for vm in event.vms} == {vm.vm for vm in vms}
    assert max(len(event.model_dump_json()) for event in drifts) < 512 * 1024


async def test_what_somebody_changed_is_put_back_and_said(node: Node) -> None:
    node.view.want(a_vm(1), a_vm(2))
    await node.step()
    node.kernel.links["vm1_net0"] = replace(node.kernel.links["vm1_net0"], mtu=9000)
    [drifted] = await node.step()
    assert isinstance(drifted, IfaceDrifted)
    assert (drifted.vms, drifted.repaired) == (("vm1",), ("set MTU of vm1_net0 to 1500",))


async def test_a_flushed_table_is_drift_of_the_node_and_of_its_vms(node: Node) -> None:
    node.view.want(a_vm(1))
    await node.step()
    node.kernel.table = False
    node.kernel.guards.clear()
    [drifted] = await node.step()
    assert isinstance(drifted, IfaceDrifted)
    assert drifted.repaired == ("load nftables table netdev vmfabric", "load anti-spoofing of vm1_net0")


async def test_a_change_that_was_asked_for_is_no_drift(node: Node) -> None:
    node.view.want(a_vm(1))
    await node.step()
    node.view.want(a_vm(1, presence=Presence.WIRED))
    assert not [event for event in await node.step() if isinstance(event, IfaceDrifted)]
    assert node.kernel.routes == set()


async def test_without_a_bus_vms_are_wired_and_the_facts_come_when_it_is_back(node: Node) -> None:
    node.published.connected = False
    node.view.want(a_vm(1))
    again = await node.agent.step(EVERYTHING)
    assert again.keys == {"vm1"}
    assert node.kernel.links["vm1_net0"].up
    node.published.connected = True
    assert [type(event) for event in await node.step()] == [IfaceReady]


async def test_before_the_desired_state_is_whole_nothing_is_done(node: Node) -> None:
    node.view.want(a_vm(1))
    node.view.complete = False
    assert await node.step() == []
    assert node.kernel.writes == 0
    heartbeat = node.agent.heartbeat()
    assert heartbeat is not None
    assert heartbeat.vms == 0


async def test_a_kernel_that_cannot_be_read_is_an_error_and_nothing_is_done(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.view.want(a_vm(1))
    await node.step()

    async def unreadable(interest: Interest) -> Actual:
        raise KernelUnreadableError("no")

    monkeypatch.setattr(node.kernel, "read", unreadable)
    writes = node.kernel.writes
    with pytest.raises(KernelUnreadableError):
        await node.step()
    assert node.kernel.writes == writes
    assert node.published.events == []


async def test_a_vm_that_the_kernel_refuses_stops_no_other(node: Node) -> None:
    node.view.want(a_vm(1))
    await node.step()
    taken = node.kernel.links.pop("vm1_net0")
    node.kernel.links["vm2_net0"] = replace(taken, name="vm2_net0", alias="somebody's", group=0, index=9)
    node.view.vms.clear()
    node.view.want(a_vm(2), a_vm(3))
    assert [event.vm for event in await node.step() if isinstance(event, IfaceReady)] == ["vm3"]
    assert node.kernel.links["vm2_net0"].alias == "somebody's"


async def test_what_the_kernel_refuses_is_not_said_until_it_is_done(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = node.kernel.carry_out

    def refuse(operation: Operation) -> None:
        if isinstance(operation, LoadGuard):
            raise RefusedError("the kernel is out of memory")
        real(operation)

    monkeypatch.setattr(node.kernel, "carry_out", refuse)
    node.view.want(a_vm(1))
    assert await node.step() == []
    monkeypatch.undo()
    assert [type(event) for event in await node.step()] == [IfaceReady]


async def test_a_purged_vm_is_forgotten_so_its_next_life_is_answered(node: Node) -> None:
    node.view.want(a_vm(1, presence=Presence.ABSENT))
    await node.step()
    asked = node.view.vms.pop("vm1")
    await node.step("vm1")
    node.view.vms["vm1"] = asked
    assert [type(event) for event in await node.step("vm1")] == [IfaceRemoved]


async def test_the_heartbeat_names_the_nodes_own_addresses_only(node: Node) -> None:
    assert node.agent.heartbeat() is None
    node.view.want(a_vm(1))
    await node.step()
    heartbeat = node.agent.heartbeat()
    assert heartbeat is not None
    assert (heartbeat.addresses, heartbeat.vms) == ((), 1)


async def test_that_a_remembered_vm_is_still_the_nodes_is_no_drift(node: Node) -> None:
    node.view.want(a_vm(1), a_vm(2))
    node.view.remembered = frozenset({"vm1", "vm2"})
    await node.step()
    assert {route.metric for route in node.kernel.routes} == {RESTORED_METRIC}
    node.view.remembered = frozenset()
    assert not [event for event in await node.step() if isinstance(event, IfaceDrifted)]
    assert {route.metric for route in node.kernel.routes} == {ROUTE_METRIC}
