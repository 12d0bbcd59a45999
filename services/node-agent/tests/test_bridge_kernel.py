"""Ports in a bridge, and the node's own part of it, on a real kernel."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import netns

from vmfabric.contract.cluster import Upstream, Virtualization
from vmfabric.contract.desired import DesiredNode, DesiredVm, Presence, Routed, Switched, SwitchingNode
from vmfabric.node_agent.domain.actual import Interest
from vmfabric.node_agent.domain.fabrics import fabric
from vmfabric.node_agent.domain.plan import plan
from vmfabric.node_agent.kernel import links
from vmfabric.node_agent.kernel.node import NodeKernel
from vmfabric.node_agent.samples import A_MOMENT, a_routing_node, a_switching_node, a_vm
from vmfabric.node_agent.uplink import UplinkMove

from .conftest import run as run_outside

pytestmark = pytest.mark.lab

_EXPERIMENTAL, _IPV6 = 0x88B5, 0x86DD
_REDIRECT = 137
ROUTED, SWITCHED = Routed(bridge="vmbr0"), Switched(bridge="vmbr0")


@pytest.fixture
async def kernel(node: Any) -> AsyncIterator[NodeKernel]:
    made = NodeKernel()
    await made._run(lambda: netns.setns(node.namespace))
    async with made:
        yield made


async def carry_out(kernel: NodeKernel, node: DesiredNode, *vms: DesiredVm) -> int:
    """How many operations it took; afterwards there is nothing left to do."""
    interest = fabric.interest(node)
    planned = plan(vms, await kernel.read(interest), node=node)
    assert planned.problems == ()
    assert await kernel.apply(planned.operations) == ()
    assert plan(vms, await kernel.read(interest), node=node).operations == ()
    return len(planned.operations)


@pytest.mark.parametrize("upstream", list(Upstream))
async def test_a_routing_node_is_set_up_in_one_pass_and_then_left(
    node: Any, kernel: NodeKernel, provider: Callable[..., str], upstream: Upstream
) -> None:
    wanted = a_routing_node(upstream=upstream)
    vms = [a_vm(number, wiring=ROUTED, virtualization=Virtualization.LXD) for number in (1, 2)]
    assert await carry_out(kernel, wanted, *vms) > 0
    assert await carry_out(kernel, wanted, *vms) == 0
    assert {link["master"] for name, link in node.links().items() if name.startswith("vnet")} == {"vmbr0"}
    proxied = {
        (it["dst"], it["dev"]) for f in ("-4", "-6") for it in node.json("ip", f, "-j", "neigh", "show", "proxy")
    }
    behind = {"10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2", "2001:db8::ffff"}
    assert proxied == ({(it, "uplink") for it in behind} if upstream is Upstream.ON_LINK else set())
    gone = [a_vm(number, wiring=ROUTED, presence=Presence.ABSENT) for number in (1, 2)]
    await carry_out(kernel, wanted, *gone)
    assert set(node.links()) == {"lo", "uplink", "vmbr0"}


def everything(node: Any) -> tuple[Any, ...]:
    """The node's own network, as an operator sees it."""
    return (
        sorted(node.links()),
        sorted(
            (it["local"], it["prefixlen"], it.get("broadcast"), it["scope"])
            for it in node.json("ip", "-j", "address", "show", "dev", "uplink")[0]["addr_info"]
        ),
        node.run("ip", "-4", "route"),
        sorted(node.run("ip", "-6", "route").splitlines()),
    )


async def moved(kernel: NodeKernel, node: SwitchingNode, path: Path) -> tuple[str | None, int]:
    """What is in the way, and how much was done."""
    move = UplinkMove(kernel, path, lambda: A_MOMENT)
    interest = fabric.interest(node) | move.interest()
    found = await move.step(node, await kernel.read(interest), interest)
    return found.problem, len(found.done)


async def test_an_uplink_moves_into_its_bridge_with_all_that_it_has(
    node: Any, kernel: NodeKernel, provider: Callable[..., str], tmp_path: Path
) -> None:
    before = node.links()["uplink"]["address"]
    problem, done = await moved(kernel, a_switching_node(), tmp_path / "journal")
    assert (problem, done > 0) == (None, True)
    links = node.links()
    assert links["uplink"]["master"] == "vmbr0"
    assert links["vmbr0"]["address"] == before
    assert {"192.0.2.1/24", "2001:db8:ff::1/64"} <= node.addresses("vmbr0")
    assert not {"192.0.2.1/24", "2001:db8:ff::1/64"} & node.addresses("uplink")
    routes = node.run("ip", "route") + node.run("ip", "-6", "route")
    assert "default via 192.0.2.254 dev vmbr0 proto static metric 100" in routes
    assert "default via 2001:db8:ff::254 dev vmbr0 proto static" in routes
    assert "198.51.100.0/24 via 192.0.2.253 dev vmbr0 src 192.0.2.1" in routes
    assert await moved(kernel, a_switching_node(), tmp_path / "journal") == (None, 0)
    provider("ping", "-c", "1", "-W", "1", "192.0.2.1")
    provider("ping", "-c", "1", "-W", "1", "2001:db8:ff::1")


async def test_an_address_with_a_peer_and_a_gateway_behind_it_move(
    node: Any, kernel: NodeKernel, provider: Callable[..., str], tmp_path: Path
) -> None:
    node.run("ip", "-4", "address", "flush", "dev", "uplink")
    node.run("ip", "address", "add", "192.0.2.1", "peer", "192.0.2.254/32", "dev", "uplink")
    node.run("ip", "route", "add", "203.0.113.9", "dev", "uplink")
    node.run("ip", "route", "add", "default", "via", "192.0.2.254")
    node.run("ip", "route", "add", "198.51.100.0/24", "via", "203.0.113.9")
    before = node.run("ip", "route")
    assert (await moved(kernel, a_switching_node(), tmp_path / "journal"))[0] is None
    assert node.run("ip", "route") == before.replace("uplink", "vmbr0")
    assert "192.0.2.1 peer 192.0.2.254/32" in node.run("ip", "address", "show", "dev", "vmbr0")
    assert "192.0.2.1" not in node.run("ip", "address", "show", "dev", "uplink")


async def test_what_goes_while_it_is_read_is_not_seen_half(
    node: Any, kernel: NodeKernel, provider: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = links.read

    def read(*of: Any) -> Any:
        found = real(*of)
        node.run("ip", "link", "set", "uplink", "down")
        return found

    monkeypatch.setattr(links, "read", read)
    seen = await kernel.read(Interest(held_by=frozenset({"uplink"})))
    assert seen.links["uplink"].up
    assert len(seen.held["uplink"].routes) == 3


@pytest.mark.parametrize("strange", ["mtu 1400", "table 100"])
async def test_an_uplink_with_a_route_that_cannot_be_moved_stays(
    node: Any, kernel: NodeKernel, provider: Callable[..., str], tmp_path: Path, strange: str
) -> None:
    node.run("ip", "route", "add", "203.0.113.0/24", "via", "192.0.2.254", *strange.split())
    before = everything(node)
    problem, done = await moved(kernel, a_switching_node(), tmp_path / "journal")
    assert problem is not None
    assert "the route to 203.0.113.0/24 over uplink" in problem
    assert (done, everything(node)) == (0, before)


async def test_an_uplink_whose_gateway_is_silent_is_as_it_was_before(
    node: Any, kernel: NodeKernel, provider: Callable[..., str], tmp_path: Path
) -> None:
    provider("ip", "address", "del", "192.0.2.254/24", "dev", "to-node")
    before = everything(node)
    problem, done = await moved(kernel, a_switching_node(), tmp_path / "journal")
    assert problem is not None
    assert "192.0.2.254 did not answer within 1 s" in problem
    assert done > 0
    assert everything(node) == before
    assert (await moved(kernel, a_switching_node(), tmp_path / "journal"))[1] == 0


def a_guest(node: Any, vm: DesiredVm) -> Callable[[str], bool]:
    """A namespace that has the guest's end, configured as a routing cluster has it; pings from there."""
    name = f"{node.namespace}-{vm.vm}"
    run_outside("ip", "netns", "add", name)
    node.guests.append(name)
    run_outside("ip", "-n", node.namespace, "link", "set", f"{vm.vm}_eth0", "netns", name)
    for command in (
        f"link set {vm.vm}_eth0 address {vm.mac} up",
        f"address add {vm.addresses[0]}/32 dev {vm.vm}_eth0",
        f"address add {vm.addresses[1]}/128 dev {vm.vm}_eth0 nodad",
        f"route add default via 192.0.2.1 dev {vm.vm}_eth0 onlink",
        f"-6 route add 2001:db8::ffff dev {vm.vm}_eth0",
        f"-6 route add default via 2001:db8::ffff dev {vm.vm}_eth0",
    ):
        run_outside("ip", "-n", name, *command.split())

    def reaches(address: str) -> bool:
        ping = ("ping", "-c", "2", "-i", "0.2", "-W", "1", address)
        return " 0% packet loss" in run_outside("ip", "netns", "exec", name, *ping, check=False)

    return reaches


def listener(kind: int) -> socket.socket:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(kind))


def heard(listening: socket.socket) -> list[bytes]:
    """Until now."""
    frames = []
    with suppress(BlockingIOError):
        while True:
            frames.append(listening.recv(2048))
    return frames


@pytest.mark.parametrize("upstream", list(Upstream))
async def test_routed_vms_reach_the_provider_and_each_other_and_no_foreign_mac_leaves(
    node: Any, kernel: NodeKernel, provider: Callable[..., str], inside: Callable[..., Any], upstream: Upstream
) -> None:
    ways = ("via", "192.0.2.1"), ("via", "2001:db8:ff::1")
    for prefix, way in zip(("10.0.0.0/24", "2001:db8::/64"), ways, strict=True):
        over = way if upstream is Upstream.ROUTED else ("dev", "to-node")
        provider("ip", "route", "add", prefix, *over)
    vms = [a_vm(number, wiring=ROUTED, virtualization=Virtualization.LXD) for number in (1, 2)]
    await carry_out(kernel, a_routing_node(upstream=upstream), *vms)
    first, second = (a_guest(node, vm) for vm in vms)
    for address in ("192.0.2.1", "192.0.2.254", "2001:db8::ffff", "2001:db8:ff::254"):
        assert first(address), address
    assert first("10.0.0.2")
    with inside(f"{node.namespace}-vm2", lambda: listener(_IPV6)) as listening:
        assert second("2001:db8::1")
        assert _REDIRECT not in {frame[54] for frame in heard(listening)}, "the other VM is reached through the node"
    for vm in vms:
        for own in vm.addresses:
            assert " 0% packet loss" in provider("ping", "-c", "1", "-W", "1", str(own), check=False), own
    assert node.counters()["foreign_mac"] == 0


def test_a_frame_with_a_foreign_mac_is_counted_and_does_not_leave(
    node: Any, provider: Callable[..., str], inside: Callable[..., Any]
) -> None:
    node.want_node(a_routing_node())
    node.start()
    node.until(lambda: "foreign_mac" in node.counters())
    own = bytes.fromhex(node.links()["uplink"]["address"].replace(":", ""))
    foreign = bytes.fromhex("02aaaaaaaaaa")

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("uplink", 0))
            for source in (foreign, own):
                with suppress(OSError):  # the kernel says so when it drops one
                    raw.send(bytes.fromhex("ffffffffffff") + source + _EXPERIMENTAL.to_bytes(2) + bytes(46))

    with inside(f"{node.namespace}-provider", lambda: listener(_EXPERIMENTAL)) as listening:
        inside(node.namespace, send)
        assert [frame[6:12] for frame in heard(listening)] == [own]
    assert node.counters()["foreign_mac"] == 1
