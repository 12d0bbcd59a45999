"""The agent's process on a real kernel, in a namespace, without a bus."""

import re
import time
from typing import Any

import pytest

from vmfabric.contract.cluster import Virtualization
from vmfabric.contract.desired import Presence
from vmfabric.node_agent.samples import a_vm

pytestmark = pytest.mark.lab

DRIFTS: dict[str, list[str]] = {
    "link deleted": ["ip link del vm1_net0"],
    "link renamed": ["ip link set vm1_net0 name mine"],
    "link down and renamed": ["ip link set vm1_net0 down", "ip link set vm1_net0 name mine"],
    "link down": ["ip link set vm1_net0 down"],
    "MAC changed": ["ip link set vm1_net0 address 02:aa:aa:aa:aa:aa"],
    "MTU changed": ["ip link set vm1_net0 mtu 1300"],
    "IPv4 gateway removed": ["ip address del 169.254.0.1/32 dev vm1_net0"],
    "IPv6 gateway removed": ["ip address del fe80::1/64 dev vm1_net0"],
    "address added": ["ip address add 192.0.2.1/24 dev vm1_net0"],
    "IPv4 route removed": ["ip route del 10.0.0.1/32 proto 86"],
    "IPv6 route removed": ["ip -6 route del 2001:db8::1/128 proto 86"],
    "reverse path filter off": ["sysctl -qw net.ipv4.conf.vm1_net0.rp_filter=0"],
    "proxy ARP on": ["sysctl -qw net.ipv4.conf.vm1_net0.proxy_arp=1"],
    "router advertisements accepted": ["sysctl -qw net.ipv6.conf.vm1_net0.accept_ra=2"],
    "forwarding off": ["sysctl -qw net.ipv4.ip_forward=0"],
    "IPv6 off": ["sysctl -qw net.ipv6.conf.vm1_net0.disable_ipv6=1"],
    "all rules flushed": ["nft flush ruleset"],
    "table deleted": ["nft delete table netdev vmfabric"],
    "own address widened": ['nft add element netdev vmfabric guest_ipv4 { "vm1_net0" . 10.9.9.9 }'],
    "port opened": ["nft insert rule netdev vmfabric port-vm1_net0 accept"],
}

_WATCHED_SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    *(f"net/ipv4/conf/vm1_net0/{name}" for name in ("forwarding", "rp_filter", "proxy_arp")),
    *(f"net/ipv6/conf/vm1_net0/{name}" for name in ("forwarding", "accept_ra", "disable_ipv6", "addr_gen_mode")),
)


def picture(node: Any) -> dict[str, object]:
    """What the kernel shows of vm1, without what changes by itself."""
    link = node.links().get("vm1_net0")
    if link is None:
        return {}
    sysctls = node.run("cat", *(f"/proc/sys/{name}" for name in _WATCHED_SYSCTLS), check=False)
    rules = re.sub(r"packets \d+ bytes \d+", "", node.run("nft", "list", "table", "netdev", "vmfabric", check=False))
    return {
        "link": (link["address"], link["mtu"], link.get("ifalias")),
        "kind": link["linkinfo"]["info_kind"],
        "up": "UP" in link["flags"],
        "addresses": node.addresses("vm1_net0"),
        "routes": node.routes(),
        "sysctls": sysctls.split(),
        # nft lists chains and elements in the order of their making.
        "rules": sorted(re.findall(r"[^\s,]+", rules)),
    }


def test_a_tap_is_made_with_all_that_belongs_to_it(node: Any) -> None:
    vm = a_vm(1)
    node.want(vm)
    node.start()
    node.until_wired(vm)
    link = node.links()["vm1_net0"]
    assert link["linkinfo"]["info_kind"] == "tun"
    assert link["linkinfo"]["info_data"]["type"] == "tap"
    assert link["linkinfo"]["info_data"]["persist"] is True
    assert link["ifalias"] == "vmfabric:msk/vm1"
    assert "metric 18650" in node.run("ip", "route", "show", "10.0.0.1")
    assert "metric 18650" in node.run("ip", "-6", "route", "show", "2001:db8::1")


def test_a_long_name_is_found_by_its_full_name(node: Any) -> None:
    vm = a_vm(1, name="a-vm-with-a-long-name")
    node.want(vm)
    node.start()
    node.until_wired(vm)
    [link] = node.json("ip", "-j", "link", "show", "a-vm-with-a-long-name_net0")
    assert len(link["ifname"]) == 15


@pytest.mark.parametrize("address", ["169.254.0.1", "fe80::1%vm1_eth0", "10.0.0.2", "2001:db8::2"])
def test_a_guest_reaches_its_gateway_and_another_guest(node: Any, address: str) -> None:
    vms = [a_vm(number, virtualization=Virtualization.LXD) for number in (1, 2)]
    node.want(*vms)
    node.start()
    node.until_wired(*vms)
    first, _second = [node.guest(vm) for vm in vms]
    node.until(lambda: " 0% packet loss" in _ping(node, first, address))


def _ping(node: Any, namespace: str, address: str) -> str:
    from_guest = ("ip", "netns", "exec", namespace, "ping", "-c", "1", "-W", "1", address)
    return str(node.run(*from_guest, check=False))


@pytest.mark.parametrize("virtualization", list(Virtualization))
def test_an_absent_vm_leaves_nothing(node: Any, virtualization: Virtualization) -> None:
    vm = a_vm(1, virtualization=virtualization)
    node.want(a_vm(2, virtualization=virtualization))
    node.start()
    node.until_wired(a_vm(2))
    before = (set(node.links()), node.routes(), node.run("nft", "list", "ruleset"))
    node.restart_with(vm)
    node.until_wired(vm)
    node.restart_with(a_vm(1, virtualization=virtualization, presence=Presence.ABSENT))
    node.until(lambda: (set(node.links()), node.routes(), node.run("nft", "list", "ruleset")) == before)


def test_a_wired_vm_keeps_its_link_and_has_no_routes(node: Any) -> None:
    node.want(a_vm(1))
    node.start()
    node.until_wired(a_vm(1))
    index = node.links()["vm1_net0"]["ifindex"]
    node.restart_with(a_vm(1, presence=Presence.WIRED))
    node.until(lambda: node.routes() == set())
    assert node.links()["vm1_net0"]["ifindex"] == index


@pytest.mark.parametrize("drift", DRIFTS)
def test_what_somebody_changes_is_back_within_five_seconds(node: Any, drift: str) -> None:
    vms = (a_vm(1), a_vm(2))
    node.want(*vms)
    node.start()
    node.until_wired(*vms)
    before = picture(node)
    for command in DRIFTS[drift]:
        node.run("nft", command.removeprefix("nft ")) if "{" in command else node.run(*command.split())
    node.until(lambda: "node.drifted" in node.log.read_text() and picture(node) == before, seconds=5)


def test_a_link_that_took_the_name_is_reported_and_left(node: Any) -> None:
    node.run("ip", "link", "add", "vm1_net0", "type", "veth", "peer", "name", "other")
    before = picture(node)
    node.want(a_vm(1), a_vm(2))
    node.start()
    node.until_wired(a_vm(2))
    node.until(lambda: "interface vm1_net0 should be the VM's" in node.log.read_text())
    after = picture(node)
    assert (after["link"], after["kind"], after["up"]) == (before["link"], before["kind"], before["up"])
    assert {interface for _, interface in node.routes()} == {"vm2_net0"}


def test_a_link_that_took_the_name_of_a_wired_vm_is_not_filtered_by_us(node: Any) -> None:
    node.want(a_vm(1))
    node.start()
    node.until_wired(a_vm(1))
    node.kill()
    node.run("ip", "link", "del", "vm1_net0")
    node.run("ip", "link", "add", "vm1_net0", "type", "veth", "peer", "name", "other")
    node.start()
    node.until(lambda: "interface vm1_net0 should be the VM's" in node.log.read_text())
    assert "vm1_net0" not in node.run("nft", "list", "table", "netdev", "vmfabric")


def test_an_absent_vm_leaves_no_link_under_another_name(node: Any) -> None:
    node.want(a_vm(1))
    node.start()
    node.until_wired(a_vm(1))
    node.kill()
    node.run("ip", "link", "set", "vm1_net0", "name", "mine")
    node.want(a_vm(1, presence=Presence.ABSENT))
    node.start()
    node.until(lambda: not {"vm1_net0", "mine"} & set(node.links()))
    node.until(lambda: "vm1_net0" not in node.run("nft", "list", "table", "netdev", "vmfabric"))


def test_strangers_are_left_alone(node: Any) -> None:
    for command in (
        "ip link add stranger0 type veth peer name stranger1",
        "ip link add v_stranger_net0 type veth peer name stranger2",
        "ip link set stranger0 up",
        "ip link set stranger1 up",
        "ip address add 192.0.2.1/24 dev stranger0",
        "ip route add 198.51.100.0/24 via 192.0.2.2 proto static",
        "ip route add 10.0.0.1/32 via 192.0.2.2 metric 5",
        "nft add table netdev strangers",
        "nft add table inet vmfabric",
    ):
        node.run(*command.split())
    node.run("nft", "add chain netdev strangers in { type filter hook ingress device stranger0 priority 0; }")
    node.run("nft", "add rule netdev strangers in counter accept")

    def strangers() -> tuple[str, ...]:
        return (
            node.run("ip", "route", "show", "dev", "stranger0"),
            node.run("ip", "address", "show", "dev", "stranger0", "scope", "global"),
            re.sub(r"packets.*", "", node.run("nft", "list", "table", "netdev", "strangers")),
            node.run("nft", "list", "table", "inet", "vmfabric"),
            str({name: link["ifindex"] for name, link in node.links().items() if "stranger" in name}),
        )

    before = strangers()
    node.want(a_vm(1))
    node.start()
    node.until_wired(a_vm(1))
    node.restart_with(a_vm(1, presence=Presence.ABSENT))
    node.until(lambda: "vm1_net0" not in node.links())
    assert strangers() == before


def test_a_restart_without_a_bus_brings_back_what_a_reboot_took(node: Any) -> None:
    vms = (a_vm(1), a_vm(2, virtualization=Virtualization.LXD))
    node.want(*vms)
    node.start()
    node.until_wired(*vms)
    node.kill()
    node.run("ip", "link", "del", "vm1_net0")
    node.run("ip", "link", "del", "vm2_net0")
    node.run("nft", "flush", "ruleset")
    node.start()
    node.until_wired(*vms)


def test_a_killed_agent_leaves_everything_as_it_is(node: Any) -> None:
    node.want(a_vm(1))
    node.start()
    node.until_wired(a_vm(1))
    before = picture(node)
    node.kill()
    assert picture(node) == before
    node.start()
    node.until(lambda: node.log.read_text().count("service.started") == 2)
    assert picture(node) == before


def test_three_hundred_vms_at_once(node: Any, capsys: pytest.CaptureFixture[str]) -> None:
    vms = [a_vm(number) for number in range(1, 301)]
    node.want(*vms)
    start = time.monotonic()
    node.start()
    node.until(lambda: len(node.routes()) == 600, seconds=60)
    wired = time.monotonic() - start
    node.kill()
    node.want(*(a_vm(number, presence=Presence.ABSENT) for number in range(1, 301)))
    start = time.monotonic()
    node.start()
    node.until(lambda: set(node.links()) == {"lo"}, seconds=60)
    removed = time.monotonic() - start
    with capsys.disabled():
        print(f"\n300 VMs: wired {wired:.2f} s and removed {removed:.2f} s after the start of the process")
