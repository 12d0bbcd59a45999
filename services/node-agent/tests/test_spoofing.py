"""What a guest that pretends to be somebody else gets through, in each network type."""

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from pyroute2 import netns

from vmfabric.contract.cluster import NetworkType, Virtualization
from vmfabric.contract.desired import Routed, Switched, Wiring
from vmfabric.node_agent.domain.fabrics.fabric import Node, interest
from vmfabric.node_agent.domain.plan import plan
from vmfabric.node_agent.domain.port import port_of
from vmfabric.node_agent.kernel.node import NodeKernel
from vmfabric.node_agent.samples import a_routing_node, a_switching_node, a_vm

from .conftest import run
from .frames import (
    CLAIMS,
    GOOD,
    HOSTILE,
    LAST,
    LEADS_TO_PREFIX,
    LINK_LOCALS,
    OTHER,
    OWN,
    OWN_IPV4,
    OWN_IPV6,
    OWN_PREFIX,
    ROUTER,
    Frame,
)

pytestmark = pytest.mark.lab

TYPES: Mapping[NetworkType, tuple[Wiring | None, Node | None]] = {
    NetworkType.IP_FABRIC: (None, None),
    NetworkType.SWITCHING: (Switched(bridge="vmbr0"), a_switching_node(uplink=None)),
    NetworkType.ROUTING: (Routed(bridge="vmbr0"), a_routing_node()),
}

Table = dict[Frame, dict[NetworkType, str]]
Inside = Callable[[str, Callable[[], socket.socket]], socket.socket]


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """What became of each frame; `-s` shows it."""
    found: Table = {}
    yield found
    rows = [("a guest sends", *TYPES), *((it.name, *(found[it].get(of, "?") for of in TYPES)) for it in found)]
    print("\n\n" + "\n".join(f"{row[0]:43}" + "".join(f"{word:21}" for word in row[1:]) for row in rows))


@pytest.fixture(params=TYPES)
def network_type(request: pytest.FixtureRequest, node: Any) -> NetworkType:
    """The node's; its VM's port is at a switch, in a namespace of its own, that gets all that leaves the port."""
    of: NetworkType = request.param
    switch = f"{node.namespace}-switch"
    run("ip", "netns", "add", switch)
    node.guests.append(switch)
    node.run("ip", "link", "add", "to-switch", "type", "veth", "peer", "name", "port", "netns", switch)
    node.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "provider")
    for end in ("uplink", "provider"):
        node.run("ip", "link", "set", end, "up")
    node.run("ip", "address", "add", "192.0.2.1/24", "dev", "uplink")
    if of is not NetworkType.ROUTING:
        node.run("ip", "link", "add", "vmbr0", "up", "type", "bridge", "mcast_snooping", "0")
    wiring, wanted = TYPES[of]
    addresses = (OWN_IPV4, OWN_IPV6, LEADS_TO_PREFIX)
    vm = a_vm(1, virtualization=Virtualization.LXD, wiring=wiring, addresses=addresses, delegated=(OWN_PREFIX,))
    asyncio.run(wire(node.namespace, vm, wanted))
    port = port_of(vm)
    # Alone on its link there is no switch: what leaves the port is seen at one all the same.
    node.run("ip", "link", "set", port.interface, "master", "vmbr0")
    node.run("ip", "link", "set", "to-switch", "master", "vmbr0", "up")
    node.run("ip", "link", "set", "vmbr0", "up")
    guest = f"{node.namespace}-guest"
    run("ip", "netns", "add", guest)
    node.guests.append(guest)
    node.run("ip", "link", "set", port.guest_interface, "netns", guest, "name", "eth0")
    for namespace, interface in ((guest, "eth0"), (switch, "port")):
        run("ip", "netns", "exec", namespace, "sysctl", "-qw", f"net.ipv6.conf.{interface}.disable_ipv6=1")
        run("ip", "-n", namespace, "link", "set", interface, "up")
    node.until(lambda: "state forwarding" in node.run("bridge", "-d", "link", "show", "dev", "to-switch"))
    return of


async def wire(namespace: str, vm: Any, wanted: Node | None) -> None:
    kernel = NodeKernel()
    await kernel._run(lambda: netns.setns(namespace))
    async with kernel:
        planned = plan([vm], await kernel.read(interest(wanted)), node=wanted)
        assert planned.problems == ()
        assert await kernel.apply(planned.operations) == ()


def at(interface: str) -> Callable[[], socket.socket]:
    def open_it() -> socket.socket:
        port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        port.bind((interface, 0x0003))
        return port

    return open_it


def until_the_last(port: socket.socket) -> list[bytes]:
    """What comes from the guest until the last does."""
    frames: list[bytes] = []
    port.settimeout(1.0)
    while (got := port.recv(2048)) != LAST:
        if got[6:12].hex(":") in {OWN, OTHER, ROUTER}:
            frames.append(got)
    return frames


def test_what_is_not_the_guests_own_does_not_arrive_and_the_rest_does(
    node: Any, network_type: NetworkType, inside: Inside, table: Table, subtests: pytest.Subtests
) -> None:
    is_alone = network_type is NetworkType.IP_FABRIC
    with ExitStack() as stack:
        guest = stack.enter_context(inside(f"{node.namespace}-guest", at("eth0")))
        switch = stack.enter_context(inside(f"{node.namespace}-switch", at("port")))
        before = node.counters()
        for frame in (*GOOD, *LINK_LOCALS, *CLAIMS, *HOSTILE):
            with subtests.test(frame.name):
                dropped = frame.alone if is_alone else frame.on_segment
                guest.send(frame.octets)
                # Frames keep their order: had it got through, it would be there before the one that follows.
                guest.send(LAST)
                arrived = until_the_last(switch)
                now = node.counters()
                counted = {name: count - before[name] for name, count in now.items() if count != before[name]}
                before = now
                seen = ", ".join(counted) or ("arrives" if arrived else "vanishes")
                table.setdefault(frame, {})[network_type] = seen
                assert arrived == ([] if dropped else [frame.octets])
                assert counted == ({dropped: 1} if dropped else {})
