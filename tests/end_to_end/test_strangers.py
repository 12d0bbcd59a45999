"""What is not ours stays as it is; what a guest must not send does not get through."""

import asyncio
from ipaddress import IPv4Address

import pytest

from outside.cluster import Cluster, address_of
from vmfabric.contract.addresses import Family
from vmfabric.contract.iface import IfaceDrifted
from vmfabric.lab.hosts import run_on

pytestmark = pytest.mark.lab


async def test_a_strangers_link_route_and_rules_are_left_alone(cluster: Cluster) -> None:
    def on_n1(*command: str, stdin: str | None = None) -> str:
        return run_on(cluster.lab, "n1", *command, stdin=stdin)

    on_n1("ip", "link", "add", "theirs0", "type", "bridge")
    on_n1("ip", "link", "set", "theirs0", "up")
    on_n1("ip", "route", "add", "198.51.100.200/32", "dev", "theirs0")
    on_n1(
        "nft",
        "-f",
        "-",
        stdin="table inet theirs { chain c { type filter hook input priority 0; counter accept; }\n}",
    )
    on_n1("nft", "-f", "-", stdin="table netdev theirs { set s { type ipv4_addr; elements = { 192.0.2.1 }; }\n}")
    try:
        kept = [on_n1("ip", "link", "show", "theirs0"), on_n1("ip", "route", "show", "dev", "theirs0")]
        rules = [on_n1("nft", "--stateless", "list", "table", family, "theirs") for family in ("inet", "netdev")]
        await cluster.request("vm1", node="n1")
        await cluster.reachable(await cluster.ready("vm1"))
        await cluster.delete("vm1")
        assert kept == [on_n1("ip", "link", "show", "theirs0"), on_n1("ip", "route", "show", "dev", "theirs0")]
        assert rules == [
            on_n1("nft", "--stateless", "list", "table", family, "theirs") for family in ("inet", "netdev")
        ]
        assert not await cluster.answers(IPv4Address("198.51.100.200"), seconds=2)
    finally:
        on_n1("nft", "delete", "table", "inet", "theirs")
        on_n1("nft", "delete", "table", "netdev", "theirs")
        on_n1("ip", "link", "delete", "theirs0")


async def test_a_guest_cannot_send_with_the_address_or_mac_of_another(cluster: Cluster) -> None:
    for vm in ("vm1", "vm2"):
        await cluster.request(vm, node="n1")
    first, second = [await cluster.ready(vm) for vm in ("vm1", "vm2")]
    await cluster.reachable(first)
    await cluster.reachable(second)
    stolen, core = address_of(second, Family.IPV4), "10.0.0.254"

    def ping(*arguments: str) -> str:
        return run_on(cluster.lab, "vm1", "sh", "-c", 'ping -n -c 2 -W 1 "$@" || true', "ping", *arguments)

    def arrived() -> int:
        shown = run_on(cluster.lab, "core", "nft", "list", "chain", "inet", "seen", "input")
        return int(shown.split("packets ")[1].split()[0])

    table = f"table inet seen {{ chain input {{ type filter hook input priority 0; ip saddr {stolen} counter; }}\n}}"
    run_on(cluster.lab, "core", "nft", "-f", "-", stdin=table)
    try:
        own = str(address_of(first, Family.IPV4))
        assert " 0% packet loss" in ping("-I", own, core), "with its own address it gets through"
        run_on(cluster.lab, "vm1", "ip", "address", "add", f"{stolen}/32", "dev", "eth0")
        ping("-I", str(stolen), core)
        assert arrived() == 0
        run_on(cluster.lab, "vm2", "ping", "-n", "-c", "1", "-W", "2", core)
        assert arrived() > 0, "the counter counts the rightful owner"
        run_on(cluster.lab, "vm1", "ip", "address", "del", f"{stolen}/32", "dev", "eth0")
        run_on(cluster.lab, "vm1", "ip", "link", "set", "eth0", "address", "02:aa:aa:aa:aa:aa")
        assert "100% packet loss" in ping("-I", own, core), "with another MAC it does not"
    finally:
        run_on(cluster.lab, "core", "nft", "delete", "table", "inet", "seen")


@pytest.mark.parametrize(
    "damage",
    [
        ("ip", "link", "set", "vm1_net0", "down"),
        ("ip", "link", "delete", "vm1_net0"),
        ("ip", "address", "flush", "dev", "vm1_net0"),
        ("ip", "route", "flush", "dev", "vm1_net0"),
        ("nft", "flush", "ruleset"),
        ("sysctl", "-qw", "net.ipv4.ip_forward=0"),
    ],
    ids=" ".join,
)
async def test_what_somebody_breaks_comes_back_within_seconds(cluster: Cluster, damage: tuple[str, ...]) -> None:
    await cluster.request("vm1", node="n1")
    ready = await cluster.ready("vm1")
    await cluster.reachable(ready)
    started = asyncio.get_running_loop().time()
    run_on(cluster.lab, "n1", *damage)
    await cluster.outside.wait_for(IfaceDrifted, node="n1", seconds=5)
    assert asyncio.get_running_loop().time() - started < 5
    await cluster.reachable(ready)
