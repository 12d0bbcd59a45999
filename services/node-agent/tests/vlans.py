"""VLANs on a real kernel that has them; `test_vlan_kernel.py` runs this under one.

`n1` has a bridge of ours, `n2` one of the operator's; both uplinks end at a physical switch, which has a gateway in
each VLAN. VM 1 and 4 are in VLAN 7, VM 2 in VLAN 8, VM 13 in none.
"""

import asyncio
import json
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vmfabric.contract.cluster import Virtualization
from vmfabric.contract.desired import DesiredVm, Presence, Switched, SwitchingNode
from vmfabric.node_agent.domain.announcement import is_announcement
from vmfabric.node_agent.domain.fabrics import fabric
from vmfabric.node_agent.domain.naming import guest_interface_name, port_name
from vmfabric.node_agent.domain.neighbour import announcement, tagged
from vmfabric.node_agent.domain.plan import Plan, plan
from vmfabric.node_agent.kernel.announcing import Announcing
from vmfabric.node_agent.kernel.node import NodeKernel
from vmfabric.node_agent.kernel.watch import Watch
from vmfabric.node_agent.samples import A_MOMENT, a_switching_node, a_vm
from vmfabric.node_agent.uplink import UplinkMove

from .conftest import inside, run

ETH_P_ALL = 0x0003
LOST = re.compile(r"(\d+) packets transmitted, (\d+) received")


def a_tagged(number: int, vlan: int | None, *, presence: Presence = Presence.ROUTED) -> DesiredVm:
    network = ("192.0.2", "2001:db8:ff") if vlan is None else (f"10.{vlan}.0", f"2001:db8:{vlan}")
    return a_vm(
        number,
        addresses=(f"{network[0]}.{number}", f"{network[1]}::{number}"),
        wiring=Switched(bridge="vmbr0", vlan=vlan),
        virtualization=Virtualization.LXD,
        presence=presence,
    )


RED, BLUE, PLAIN, DISTANT = a_tagged(1, 7), a_tagged(2, 8), a_tagged(13, None), a_tagged(4, 7)
GATEWAYS = {
    7: ("10.7.0.254", "2001:db8:7::fe"),
    8: ("10.8.0.254", "2001:db8:8::fe"),
    None: ("192.0.2.254", "2001:db8:ff::fe"),
}


@dataclass
class Switch:
    """The physical one, and what is at it."""

    directory: Path
    guests: set[str] = field(default_factory=set)

    def carry_out(self, node: SwitchingNode, *vms: DesiredVm) -> Plan:
        """What was done; afterwards there is nothing left to do, and each guest has its end."""

        async def work() -> Plan:
            async with NodeKernel() as kernel:
                move = UplinkMove(kernel, self.directory / node.node, lambda: A_MOMENT)
                interest = fabric.interest(node) | move.interest()
                moved = await move.step(node, await kernel.read(interest), interest)
                assert moved.problem is None
                planned = plan(vms, moved.actual, node=node)
                assert await kernel.apply(planned.operations) == ()
                after = plan(vms, await kernel.read(interest), node=node)
                assert after.operations == ()
                assert after.problems == planned.problems
                return planned

        done = inside(node.node, lambda: asyncio.run(work()))
        for vm in vms:
            if vm.vm not in self.guests and vm.presence is not Presence.ABSENT and not done.problems:
                self._plug_in(node, vm)
        return done

    def _plug_in(self, node: SwitchingNode, vm: DesiredVm) -> None:
        self.guests.add(vm.vm)
        end = guest_interface_name(vm.cluster, vm.vm)
        run("ip", "netns", "add", vm.vm)
        run("ip", "-n", node.node, "link", "set", end, "netns", vm.vm, "name", "eth0")
        script = [f"link set eth0 address {vm.mac} up"]
        batch(vm.vm, *script, *(with_address(str(it), "eth0") for it in vm.addresses))


def with_address(address: str, interface: str) -> str:
    """Without waiting for duplicates."""
    return f"address add {address}/{'64' if ':' in address else '24'} dev {interface} nodad"


def batch(namespace: str, *commands: str) -> None:
    script = "\n".join(commands)
    done = subprocess.run(
        ["ip", "-n", namespace, "-batch", "-"], input=script, text=True, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr


OWN = a_switching_node().model_copy(update={"node": "n1", "confirm_seconds": 5})
OPERATORS = a_switching_node(uplink=None).model_copy(update={"node": "n2"})


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Switch:
    for namespace in ("switch", "n1", "n2"):
        run("ip", "netns", "add", namespace)
    batch("switch", "link add name fabric type bridge vlan_filtering 1", "link set fabric up")
    for number, node in enumerate(("n1", "n2"), 1):
        run("ip", "-n", "switch", "link", "add", node, "type", "veth", "peer", "name", "uplink", "netns", node)
        batch("switch", f"link set {node} master fabric up")
        batch(
            node,
            "link set uplink up",
            f"address add 192.0.2.{number}/24 dev uplink",
            "route add default via 192.0.2.254",
        )
    for vlan, addresses in GATEWAYS.items():
        name = "fabric" if vlan is None else f"fabric.{vlan}"
        if vlan is not None:
            batch("switch", f"link add link fabric name {name} type vlan id {vlan}", f"link set {name} up")
            for port in ("fabric", "n1", "n2"):
                own = ("self",) if port == "fabric" else ()
                run("bridge", "-n", "switch", "vlan", "add", "vid", str(vlan), "dev", port, *own)
        batch("switch", *(with_address(it, name) for it in addresses))
    return Switch(tmp_path_factory.mktemp("journals"))


@contextmanager
def pinged(namespace: str, address: str) -> Iterator[list[int]]:
    """Every 10 ms while the block lasts; afterwards how many were sent, and how many answered."""
    command = ("ip", "netns", "exec", namespace, "ping", "-i", "0.01", "-q", address)
    counted: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield counted
        finally:
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate()
    found = LOST.search(said)
    assert found is not None, said
    counted += map(int, found.groups())


def reaches(namespace: str, *addresses: object) -> bool:
    answers = [
        " 0% packet loss" in run("ip", "netns", "exec", namespace, "ping", "-c", "1", "-W", "1", str(it), check=False)
        for it in addresses
    ]
    assert len(set(answers)) == 1, (addresses, answers)
    return answers[0]


@contextmanager
def heard(namespace: str, interface: str = "eth0") -> Iterator[Callable[[], set[bytes]]]:
    """What has come in there since; one that came with a tag is without it."""

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL))
        made.bind((interface, ETH_P_ALL))
        return made

    def frames() -> set[bytes]:
        found = set()
        with suppress(BlockingIOError):
            while True:
                found.add(listening.recv(2048))
        return found

    with inside(namespace, listen) as listening:
        yield frames


def say(namespace: str, *frames: bytes) -> None:
    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as speaking:
            for frame in frames:
                speaking.sendto(frame, ("eth0", 0))

    inside(namespace, send)


def vlans(node: str) -> dict[str, set[str]]:
    """By port, as an operator sees them."""
    return {
        port["ifname"]: {" ".join([str(it["vlan"]), *it.get("flags", ())]) for it in port["vlans"]}
        for port in json.loads(run("bridge", "-n", node, "-j", "vlan"))
    }


def of(vm: DesiredVm) -> str:
    return port_name(vm.cluster, vm.vm)


def test_what_is_not_tagged_loses_no_packet_while_vlans_come_and_go(switch: Switch) -> None:
    switch.carry_out(OWN, PLAIN)
    with pinged("switch", "192.0.2.13") as to_vm, pinged("n1", "192.0.2.254") as from_node:
        switch.carry_out(OWN, PLAIN, RED)
        gone = a_tagged(1, 7, presence=Presence.ABSENT)
        done = switch.carry_out(OWN, PLAIN, gone)
        switch.guests.discard("vm1")
    assert "tell no VLANs apart in vmbr0" in map(str, done.operations)
    run("ip", "netns", "del", "vm1")
    for sent, received in (to_vm, from_node):
        assert sent > 20
        assert received >= sent - 1, "the last one may be on its way"
    assert vlans("n1") == {it: {"1 PVID Egress Untagged"} for it in ("uplink", "vmbr0", of(PLAIN))}


@pytest.fixture(scope="module")
def wired(switch: Switch) -> Switch:
    """All VMs."""
    switch.carry_out(OWN, PLAIN, RED, BLUE)
    batch("n2", "link add vmbr0 type bridge", "link set vmbr0 up", "link set uplink master vmbr0")
    return switch


def test_an_operators_bridge_has_to_carry_the_vlan_already(wired: Switch) -> None:
    [problem] = wired.carry_out(OPERATORS, DISTANT).problems
    assert "keeps no VLANs apart" in problem.sentence
    batch("n2", "link set vmbr0 type bridge vlan_filtering 1")
    [problem] = wired.carry_out(OPERATORS, DISTANT).problems
    assert "no port of vmbr0, which is not vmfabric's, leads to it" in problem.sentence
    run("bridge", "-n", "n2", "vlan", "add", "vid", "7", "dev", "uplink")
    assert wired.carry_out(OPERATORS, DISTANT).problems == ()
    assert vlans("n2")["uplink"] == {"1 PVID Egress Untagged", "7"}
    assert vlans("n2")[of(DISTANT)] == {"7 PVID Egress Untagged"}


def test_each_vm_reaches_the_gateway_of_its_vlan_and_the_vms_of_it_on_other_nodes(wired: Switch) -> None:
    assert reaches("vm1", *GATEWAYS[7], *DISTANT.addresses)
    assert reaches("vm2", *GATEWAYS[8])
    assert reaches("vm13", *GATEWAYS[None])
    assert vlans("n1")["uplink"] == {"1 PVID Egress Untagged", "7", "8"}


def test_no_vm_hears_what_is_said_in_another_vlan_with_whatever_tag_it_is_sent(wired: Switch) -> None:
    said = announcement(RED.addresses[0], RED.mac)
    with heard("vm2") as by_blue, heard("vm13") as by_plain, heard("vm4") as by_distant:
        say("vm1", tagged(said, 8), tagged(said, 1), tagged(said, 7), said)
        assert reaches("vm1", *DISTANT.addresses), "what was said has arrived by now"
        assert said in by_distant()
        own = bytes.fromhex(RED.mac.replace(":", ""))
        assert not [frame for frame in by_blue() | by_plain() if own in frame[:12]]
    counters = run("ip", "netns", "exec", "n1", "nft", "list", "counter", "netdev", "vmfabric", "dropped_other")
    assert "packets 3 " in counters


def test_a_guest_that_has_come_is_announced_in_its_vlan_and_in_no_other(wired: Switch) -> None:
    async def work() -> None:
        async with NodeKernel() as kernel, asyncio.TaskGroup() as tasks:
            links = (await kernel.read(fabric.interest(OWN))).links.values()
            Announcing(tasks, prepared=frozenset({"vm1"})).notice([RED], links)

    said = {announcement(it, RED.mac) for it in RED.addresses}
    with heard("vm4") as by_distant, heard("switch", "fabric.8") as in_another, heard("vm13") as by_plain:
        inside("n1", lambda: asyncio.run(work()))
        assert said <= by_distant()
        assert not said & (in_another() | by_plain())


def test_a_guest_in_a_vlan_is_heard_at_its_port(wired: Switch) -> None:
    with heard("n1", of(RED)) as at_port:
        say("vm1", announcement(RED.addresses[0], RED.mac))
        assert any(is_announcement(frame, RED.mac) for frame in at_port())


@pytest.mark.parametrize(
    ("drift", "repair"),
    [
        (f"bridge vlan del vid 7 dev {of(RED)}", f"put {of(RED)} into VLAN 7"),
        (f"bridge vlan add vid 1 dev {of(RED)} untagged", f"take {of(RED)} out of VLAN 1"),
        (f"bridge vlan add vid 8 dev {of(RED)} pvid untagged", f"put {of(RED)} into VLAN 7"),
        (f"bridge vlan add vid 7 dev {of(PLAIN)} pvid untagged", f"put {of(PLAIN)} into VLAN 1"),
        ("bridge vlan del vid 7 dev uplink", "put uplink into VLAN 7, tagged"),
        ("bridge vlan add vid 8 dev uplink pvid untagged", "put uplink into VLAN 8, tagged"),
        ("ip link set vmbr0 type bridge vlan_filtering 0", "keep VLANs apart in vmbr0"),
    ],
)
def test_what_somebody_changes_is_noticed_and_put_back(wired: Switch, drift: str, repair: str) -> None:
    before = vlans("n1")

    async def changed() -> None:
        noticed = asyncio.Event()
        with Watch(noticed.set, quiet=0.0):
            await asyncio.to_thread(run, "ip", "netns", "exec", "n1", *drift.split())
            async with asyncio.timeout(5):
                await noticed.wait()

    inside("n1", lambda: asyncio.run(changed()))
    assert repair in map(str, wired.carry_out(OWN, PLAIN, RED, BLUE).operations)
    assert vlans("n1") == before


def test_a_vlan_of_which_no_vm_is_left_leaves_the_uplink_and_the_others_stay(wired: Switch) -> None:
    gone = a_tagged(1, 7, presence=Presence.ABSENT)
    wired.carry_out(OWN, PLAIN, gone, BLUE)
    assert vlans("n1")["uplink"] == {"1 PVID Egress Untagged", "8"}
    assert reaches("vm2", *GATEWAYS[8])
    assert not wired.carry_out(OWN, PLAIN, gone, BLUE).operations
