"""The text that nft gets, and what is read from its answers."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from vmfabric.contract.addresses import link_local
from vmfabric.contract.bandwidth import Bandwidth
from vmfabric.node_agent.domain.antispoof import GuardState, Rule, Ruleset
from vmfabric.node_agent.domain.guest_rules import SHARED_CHAINS
from vmfabric.node_agent.domain.operations import GuardOperation, LoadGuard, LoadTable, RemoveGuard
from vmfabric.node_agent.domain.port import port_of
from vmfabric.node_agent.kernel import nftables
from vmfabric.node_agent.kernel.nft_text import render
from vmfabric.node_agent.samples import a_vm

GOLDEN = Path(__file__).with_name("golden")
NAMESPACE = "vmf-na-nft"


def a_load(number: int, *, name: str | None = None, found: GuardState | None = None) -> LoadGuard:
    port = port_of(a_vm(number, name=name))
    return LoadGuard(port.vm, port.interface, port.guard, found)


def on_a_segment(number: int, bandwidth: Bandwidth | None = None) -> LoadGuard:
    load = a_load(number)
    return replace(load, guard=replace(load.guard, on_segment=True, bandwidth=bandwidth))


def a_removal(number: int) -> RemoveGuard:
    load = a_load(number)
    return RemoveGuard(load.vm, load.interface, load.guard.loaded())


def with_a_prefix(number: int) -> LoadGuard:
    load = a_load(number)
    return replace(load, guard=replace(load.guard, delegated=frozenset({IPv6Network(f"2001:db8:0:{number}::/64")})))


LIMITED = on_a_segment(1, Bandwidth(in_kbit=5_000, out_kbit=50_000))
OTHER_ADDRESS = replace(a_load(1).guard, ipv4=frozenset({IPv4Address("10.0.0.77")})).loaded()

BEFORE: tuple[GuardOperation, ...] = (LoadTable(), a_load(1), a_load(2))
"""What stands in the kernel before the cases that change something."""

CASES: dict[str, tuple[GuardOperation, ...]] = {
    "table_and_two_ports": BEFORE,
    "name_that_begins_with_a_digit_or_is_long": (LoadTable(), a_load(3, name="1"), a_load(4, name="a" * 40)),
    "table_again": (LoadTable(),),
    "port_again": (a_load(1, found=a_load(1).guard.loaded()),),
    "port_without_its_chain": (a_load(1, found=replace(a_load(1).guard.loaded(), from_guest=None)),),
    "port_on_a_segment_with_limits": (LoadTable(), LIMITED),
    "port_with_a_prefix": (LoadTable(), with_a_prefix(1), with_a_prefix(2)),
    "limited_port_removed": (RemoveGuard(LIMITED.vm, LIMITED.interface, LIMITED.guard.loaded()),),
    "two_ports_removed": (a_removal(1), a_removal(2)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_text_is_the_golden_one(case: str) -> None:
    assert render(CASES[case]) == (GOLDEN / f"{case}.nft").read_text()


def test_an_element_that_should_not_be_there_is_deleted_and_a_missing_one_added() -> None:
    text = render([a_load(1, found=OTHER_ADDRESS)])
    assert 'delete element netdev vmfabric guest_ipv4 { "vm1_net0" . 10.0.0.77 }' in text
    assert 'add element netdev vmfabric guest_ipv4 { "vm1_net0" . 10.0.0.1 }' in text
    assert "guest_ipv6" not in text


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"nftables": [{"chain": {}}]}', "not json"])
def test_an_answer_that_is_not_understood_is_an_error(text: str) -> None:
    with pytest.raises(nftables.NftError):
        nftables.parse(text)


def test_an_empty_family_is_an_answer() -> None:
    assert nftables.parse('{"nftables": [{"metainfo": {"version": "1.0.6"}}]}') == Ruleset(False, {})


@pytest.fixture
def namespace() -> Iterator[str]:
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        for interface in ("vm1_net0", "vm2_net0", "1_net0", a_load(4, name="a" * 40).interface):
            inside("ip", "tuntap", "add", "dev", interface, "mode", "tap")
        yield NAMESPACE
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


def inside(*command: str, text: str | None = None) -> str:
    return subprocess.run(
        ["ip", "netns", "exec", NAMESPACE, *command], input=text, check=True, capture_output=True, text=True
    ).stdout


def ruleset() -> Ruleset:
    return nftables.parse(inside("nft", "-j", "list", "ruleset", "netdev"))


@pytest.mark.lab
@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize("case", CASES)
def test_nft_takes_the_golden_text_and_shows_what_was_meant(case: str) -> None:
    if LoadTable() not in CASES[case] or case == "table_again":
        inside("nft", "-f", "-", text=render((LoadTable(), LIMITED) if case == "limited_port_removed" else BEFORE))
    if case == "port_without_its_chain":
        inside("nft", "flush", "chain", "netdev", "vmfabric", "port-vm1_net0")
        inside("nft", "delete", "chain", "netdev", "vmfabric", "port-vm1_net0")
        assert ruleset().guards["vm1_net0"].from_guest is None
    text = (GOLDEN / f"{case}.nft").read_text()
    inside("nft", "-c", "-f", "-", text=text)
    inside("nft", "-f", "-", text=text)
    found = ruleset()
    assert found.complete
    for operation in CASES[case]:
        match operation:
            case LoadGuard(interface=interface, guard=guard):
                assert found.guards[interface].is_as(guard)
            case RemoveGuard(interface=interface):
                assert interface not in found.guards
            case LoadTable():
                pass


@pytest.mark.lab
@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize(
    "command",
    [
        "flush chain netdev vmfabric guest_arp",
        "insert rule netdev vmfabric guest accept",
        "add rule netdev vmfabric guest_ipv6 accept",
    ],
)
def test_a_shared_chain_that_somebody_changed_is_seen(command: str) -> None:
    inside("nft", "-f", "-", text=render(BEFORE))
    assert ruleset().complete
    inside("nft", *command.split())
    assert not ruleset().complete


@pytest.mark.lab
@pytest.mark.usefixtures("namespace")
def test_rules_that_an_older_agent_loaded_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = SHARED_CHAINS["guest_ipv4"]
    with monkeypatch.context() as older:
        older.setitem(SHARED_CHAINS, "guest_ipv4", (Rule(rules[0].name, "accept"), *rules[1:]))
        inside("nft", "-f", "-", text=render(BEFORE))
        assert ruleset().complete
    assert not ruleset().complete
    inside("nft", "-f", "-", text=render([LoadTable()]))
    assert ruleset().complete


@pytest.mark.lab
@pytest.mark.usefixtures("namespace")
def test_a_port_chain_that_somebody_opened_is_seen() -> None:
    inside("nft", "-f", "-", text=render(BEFORE))
    inside("nft", "insert", "rule", "netdev", "vmfabric", "port-vm1_net0", "accept")
    assert not ruleset().guards["vm1_net0"].is_as(a_load(1).guard)


@pytest.mark.lab
@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize(
    "command",
    [
        "flush chain netdev vmfabric to-vm1_net0",
        "add rule netdev vmfabric to-vm1_net0 accept",
        "insert rule netdev vmfabric port-vm1_net0 limit rate over 1000 bytes/second drop",
        "add element netdev vmfabric guest_link_local { vm1_net0 . fe80::1 }",
        "add element netdev vmfabric guest_mac_octets { vm1_net0 . 0x020000000002 }",
    ],
)
def test_a_limited_port_on_a_segment_that_somebody_changed_is_seen_and_mended(command: str) -> None:
    inside("nft", "-f", "-", text=render((LoadTable(), LIMITED)))
    assert ruleset().guards["vm1_net0"].is_as(LIMITED.guard)
    inside("nft", *command.split())
    found = ruleset().guards["vm1_net0"]
    assert not found.is_as(LIMITED.guard)
    inside("nft", "-f", "-", text=render([replace(LIMITED, found=found)]))
    assert ruleset().guards["vm1_net0"].is_as(LIMITED.guard)


def test_a_link_local_address_follows_from_the_mac_address() -> None:
    assert link_local("34:56:78:9a:bc:de") == IPv6Address("fe80::3656:78ff:fe9a:bcde")
