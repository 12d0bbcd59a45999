"""The agent's process on a routing and on a switching node, without a bus."""

import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

from vmfabric.contract.cluster import Upstream
from vmfabric.contract.desired import Presence, Routed, Switched
from vmfabric.node_agent.domain.naming import port_name
from vmfabric.node_agent.domain.neighbour import announcement
from vmfabric.node_agent.samples import a_routing_node, a_switching_node, a_vm
from vmfabric.runtime.desired import Revised
from vmfabric.runtime.snapshot import Confirmations

pytestmark = pytest.mark.lab

ETH_P_ALL = 0x0003
PORT = port_name("msk", "vm1")
ROUTED_VM, SWITCHED_VM = a_vm(1, wiring=Routed(bridge="vmbr0")), a_vm(1, wiring=Switched(bridge="vmbr0"))

ROUTING_DRIFTS: dict[str, list[str]] = {
    "port taken out": [f"ip link set {PORT} nomaster"],
    "isolation off": [f"bridge link set dev {PORT} isolated off"],
    "port renamed": [f"ip link set {PORT} down", f"ip link set {PORT} name mine"],
    "bridge deleted": ["ip link del vmbr0"],
    "bridge down": ["ip link set vmbr0 down"],
    "MAC of the bridge changed": ["ip link set vmbr0 address 02:aa:aa:aa:aa:aa"],
    "spanning tree on": ["ip link set vmbr0 type bridge stp_state 1"],
    "gateway removed": ["ip address del 2001:db8::ffff/64 dev vmbr0"],
    "subnet's route removed": ["ip route del 10.0.0.0/24 proto 86"],
    "VM's route removed": ["ip route del 10.0.0.1/32 proto 86"],
    "answers removed": ["ip neigh del proxy 10.0.0.1 dev uplink", "ip neigh del proxy 2001:db8::1 dev uplink"],
    "proxy ND off": ["sysctl -qw net.ipv6.conf.uplink.proxy_ndp=0"],
    "redirects on": ["sysctl -qw net.ipv4.conf.all.send_redirects=1"],
    "uplink open": ["nft flush chain netdev vmfabric egress-uplink"],
    "uplink open to DHCP": ["nft flush chain netdev vmfabric ingress-uplink"],
    "bridge open": ["nft flush chain netdev vmfabric egress-vmbr0"],
}


_WATCHED_SYSCTLS = (
    "/proc/sys/net/ipv6/conf/uplink/proxy_ndp",
    "/proc/sys/net/ipv4/conf/all/send_redirects",
    "/proc/sys/net/ipv4/ip_forward",
)


def picture(node: Any) -> dict[str, Any]:
    """What the kernel shows of the node and vm1, without what changes by itself."""
    links = {name: link for name, link in node.links().items() if name in {PORT, "vmbr0", "uplink", "mine"}}
    return {
        "links": {
            name: (link["address"], link.get("master"), link.get("ifalias"), "UP" in link["flags"])
            for name, link in links.items()
        },
        "bridge": [
            links.get(name, {}).get("linkinfo", {}).get(data, {}).get(setting)
            for name, data, setting in (
                ("vmbr0", "info_data", "stp_state"),
                ("vmbr0", "info_data", "forward_delay"),
                (PORT, "info_slave_data", "isolated"),
            )
        ],
        "addresses": {name: node.addresses(name) for name in links},
        "routes": sorted(
            route.replace(" linkdown", "")
            for family in ("-4", "-6")
            for route in node.run("ip", family, "route").splitlines()
        ),
        "answers": {
            (it["dst"], it["dev"])
            for family in ("-4", "-6")
            for it in node.json("ip", family, "-j", "neigh", "show", "proxy")
        },
        "sysctls": node.run("cat", *_WATCHED_SYSCTLS),
        "guards": sorted(re.findall(r"chain (?:e|in)gress-[^}]*", node.run("nft", "list", "ruleset", "netdev"))),
    }


def waiting(port: socket.socket) -> set[bytes]:
    """The frames that have come by a port."""
    frames = set()
    while True:
        try:
            frames.add(port.recv(2048))
        except BlockingIOError:
            return frames


def is_back(node: Any, before: dict[str, Any], drifts: int) -> bool:
    return node.log.read_text().count("node.drifted") >= drifts and picture(node) == before


def changed_and_back(node: Any, subtests: pytest.Subtests, drifts: dict[str, list[str]]) -> None:
    node.until(lambda: "fe80::" in str(node.addresses("vmbr0")))
    before = picture(node)
    for number, (drift, commands) in enumerate(drifts.items(), 1):
        with subtests.test(drift):
            for command in commands:
                node.run(*command.split())
            node.until(lambda count=number: is_back(node, before, count), seconds=5)


def test_what_somebody_changes_on_a_routing_node_is_back_within_five_seconds(
    node: Any, provider: Callable[..., str], subtests: pytest.Subtests
) -> None:
    node.value = a_routing_node(upstream=Upstream.ON_LINK)
    node.want(ROUTED_VM)
    node.start()
    node.until(lambda: ("10.0.0.1", "vmbr0") in node.routes())
    changed_and_back(node, subtests, ROUTING_DRIFTS)


SWITCHING_DRIFTS: dict[str, list[str]] = {
    "NIC taken out": ["ip link set uplink nomaster"],
    "port taken out": [f"ip link set {PORT} nomaster"],
    "address on the NIC": ["ip address add 192.0.2.1/24 dev uplink"],
    "bridge deleted": ["ip link del vmbr0"],
    "bridge down": ["ip link set vmbr0 down"],
}


def test_what_somebody_changes_on_a_switching_node_is_back_within_five_seconds(
    node: Any, provider: Callable[..., str], subtests: pytest.Subtests
) -> None:
    node.value = a_switching_node()
    node.want(SWITCHED_VM)
    node.start()
    node.until(lambda: PORT in node.links() and node.links()[PORT].get("master") == "vmbr0")
    changed_and_back(node, subtests, SWITCHING_DRIFTS)
    provider("ping", "-c", "1", "-W", "1", "192.0.2.1")


def test_an_agent_that_is_killed_amid_the_move_ends_it_at_its_next_start(
    node: Any, provider: Callable[..., str]
) -> None:
    provider("ip", "address", "del", "192.0.2.254/24", "dev", "to-node")
    before = picture(node)
    node.want_node(a_switching_node())
    node.start()
    node.until(lambda: "uplink.moving" in node.log.read_text())
    node.kill()
    assert picture(node) != before
    node.start()
    node.until(lambda: "uplink.taken-back" in node.log.read_text())
    assert picture(node) == before


def test_a_guest_that_came_while_the_agent_was_away_is_announced_to_the_physical_network(
    node: Any, provider: Callable[..., str], inside: Callable[..., Any]
) -> None:
    come, stayed = SWITCHED_VM, a_vm(2, wiring=Switched(bridge="vmbr0"))
    confirmations = Confirmations(node.directory / "node-agent.confirmed.json")
    confirmations.confirm(Revised(1, come.model_copy(update={"presence": Presence.PREPARED})))
    confirmations.confirm(Revised(2, stayed))
    confirmations.save()
    node.value = a_switching_node()
    node.want(come, stayed)

    def listen() -> socket.socket:
        port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL))
        port.bind(("to-node", ETH_P_ALL))
        return port

    with inside(f"{node.namespace}-provider", listen) as port:
        node.start()
        node.until(lambda: "guest.announced" in node.log.read_text())
        heard = waiting(port)
    assert {announcement(address, come.mac) for address in come.addresses} <= heard
    assert not {announcement(address, stayed.mac) for address in stayed.addresses} & heard


def test_a_vm_of_a_node_whose_uplink_is_taken_back_is_not_said_to_be_ready(
    node: Any, provider: Callable[..., str]
) -> None:
    provider("ip", "address", "del", "192.0.2.254/24", "dev", "to-node")
    node.value = a_switching_node()
    node.want(SWITCHED_VM, a_vm(2, wiring=Switched(bridge="vmbr0"), presence=Presence.ABSENT))
    node.start()
    node.until(lambda: "192.0.2.254 did not answer within 1 s" in node.log.read_text())
    node.until(lambda: "there is no such bridge here" in node.log.read_text())
    assert PORT not in node.links()
