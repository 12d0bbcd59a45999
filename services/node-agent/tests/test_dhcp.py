"""What dnsmasq is told, and which guests it cannot serve."""

import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmfabric.contract.cluster import Virtualization
from vmfabric.contract.desired import DesiredVm, Presence, Routed, Switched
from vmfabric.contract.iface import GuestAddress
from vmfabric.node_agent.domain.actual import Link
from vmfabric.node_agent.domain.dhcp import serving
from vmfabric.node_agent.domain.restarts import Restarts
from vmfabric.node_agent.samples import a_vm

GOLDEN = Path(__file__).with_name("golden") / "dhcp"


def a_link(name: str, *addresses: str) -> Link:
    return Link(
        index=1,
        name=name,
        kind=None,
        alias=None,
        alternative_names=frozenset(),
        group=0,
        mac=None,
        mtu=1500,
        up=True,
        carrier=True,
        addresses=frozenset(map(ip_interface, addresses)),
        sysctls={},
    )


def links(*given: Link) -> dict[str, Link]:
    return {link.name: link for link in given}


def a_bridged(number: int, prefix: str, gateway: str | None, wiring: Switched | Routed) -> DesiredVm:
    address = GuestAddress(prefix=ip_interface(prefix), gateway=None if gateway is None else ip_address(gateway))
    vm = a_vm(number, dhcp=True, wiring=wiring, virtualization=Virtualization.LXD)
    return vm.model_copy(update={"guest_addresses": (address,), "addresses": (address.prefix.ip,)})


SWITCHED = (
    a_bridged(1, "192.0.2.21/24", "192.0.2.254", Switched(bridge="vmbr0")),
    a_bridged(2, "198.51.100.22/25", "198.51.100.1", Switched(bridge="vmbr0")),
    a_bridged(3, "198.51.100.23/25", None, Switched(bridge="vmbr0")),
)
ROUTED = tuple(a_bridged(number, f"10.0.0.{number}/32", "192.0.2.1", Routed(bridge="vmbr0")) for number in (1, 2))

CASES: dict[str, tuple[tuple[DesiredVm, ...], dict[str, Link]]] = {
    "ip_fabric": ((a_vm(1, dhcp=True, mtu=1450), a_vm(2), a_vm(3, dhcp=True, name="a" * 40)), {}),
    "switching": (SWITCHED, links(a_link("vmbr0", "192.0.2.1/24", "fe80::2/64"))),
    "routing": (ROUTED, links(a_link("uplink", "192.0.2.1/24"), a_link("vmbr0", "2001:db8::2/64"))),
}


@pytest.mark.parametrize("case", CASES)
def test_the_configuration_is_the_golden_one_and_dnsmasq_takes_it(case: str) -> None:
    path = GOLDEN / f"{case}.conf"
    assert serving(*CASES[case]).configuration == path.read_text()
    command = ("dnsmasq", "--test", f"--conf-file={path}")
    checked = subprocess.run(command, check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_where_nobody_wants_it_there_is_none() -> None:
    gone = a_vm(2, dhcp=True, presence=Presence.ABSENT)
    assert serving([a_vm(1), gone], {}).configuration is None


UNSERVED: dict[str, tuple[DesiredVm, dict[str, Link], str]] = {
    "no IPv4 address": (a_vm(1, dhcp=True, addresses=("2001:db8::1",)), {}, "gives IPv4 addresses only"),
    "in a VLAN": (
        a_bridged(1, "192.0.2.21/24", "192.0.2.254", Switched(bridge="vmbr0", vlan=100)),
        links(a_link("vmbr0", "192.0.2.1/24")),
        "is in VLAN 100, where the node has no address",
    ),
    "bridge without an address": (SWITCHED[0], links(a_link("vmbr0", "fe80::2/64")), "vmbr0, which has no IPv4"),
    "no bridge": (SWITCHED[0], {}, "vmbr0, which has no IPv4"),
    "nobody has the gateway": (ROUTED[0], links(a_link("vmbr0")), "no interface of the node has its gateway"),
}


@pytest.mark.parametrize("case", UNSERVED)
def test_a_guest_that_cannot_be_served_is_said_and_keeps_no_other_from_it(case: str) -> None:
    vm, seen, sentence = UNSERVED[case]
    found = serving([vm, a_vm(2, dhcp=True)], seen)
    assert [answer.vm for answer in found.answers] == ["vm2"]
    [problem] = found.problems
    assert problem.vm == "vm1"
    assert sentence in problem.sentence


def test_an_address_that_another_vm_still_has_is_given_to_that_one_only() -> None:
    before = a_vm(1, dhcp=True, generation=1)
    after = a_vm(2, dhcp=True, generation=2, addresses=("10.0.0.1",))
    assert [answer.vm for answer in serving([after, before], {}).answers] == ["vm1"]


addresses = st.one_of(st.ip_addresses(network="10.0.0.0/29"), st.ip_addresses(network="2001:db8::/125")).map(str)
guests = st.builds(
    a_vm,
    st.integers(1, 60_000),
    dhcp=st.booleans(),
    presence=st.sampled_from(Presence),
    mtu=st.integers(576, 9000),
    addresses=st.lists(addresses, max_size=3).map(tuple),
)


@given(st.lists(guests, max_size=8, unique_by=lambda vm: vm.vm))
def test_the_configuration_depends_on_no_order_and_names_an_address_once(vms: list[DesiredVm]) -> None:
    found = serving(vms, {})
    assert serving(vms[::-1], {}).configuration == found.configuration
    hosts = [line for line in (found.configuration or "").splitlines() if line.startswith("dhcp-host=")]
    assert len({line.split(",")[-2] for line in hosts}) == len(hosts)
    asked = {vm.vm for vm in vms if vm.dhcp and vm.presence is not Presence.ABSENT}
    assert {answer.vm for answer in found.answers} | {problem.vm for problem in found.problems} <= asked


def pauses(restarts: Restarts, lives: float) -> Iterator[float]:
    """Between an end and the next start, of a program that lives so long each time."""
    now = restarts.due
    while True:
        restarts = restarts.started(now)
        ended = now + lives
        now = max(ended, restarts.due)
        yield now - ended


def test_what_ends_at_once_is_started_again_with_growing_pauses_up_to_a_minute() -> None:
    found = pauses(Restarts(), lives=0.0)
    assert [next(found) for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_what_has_run_for_long_is_started_again_at_once() -> None:
    found = pauses(Restarts(due=0.0, pause=60.0), lives=600.0)
    assert [next(found) for _ in range(3)] == [0, 0, 0]
