"""A physical network and a provider's, without services: what they do, and what a node has at boot."""

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from vmfabric.contract.addresses import HostAddress
from vmfabric.lab import faults
from vmfabric.lab import making as labs
from vmfabric.lab.hosts import answers_ping, run_on
from vmfabric.lab.lab import Lab
from vmfabric.lab.programs import run
from vmfabric.lab.routing import refused_frames
from vmfabric.lab.testing import own_state, own_topology
from vmfabric.lab.topology import AnyNode, RentedNode

pytestmark = pytest.mark.lab


def eventually(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def networks() -> Iterator[Lab]:
    with own_state() as state:
        topology = own_topology("w", "all-types").model_copy(
            update={"asn": None, "fabric": None, "nodes": (), "reflectors": (), "core": None}
        )
        yield labs.up(topology, state, with_services=False)


def is_at_boot(lab: Lab, node: AnyNode) -> bool:
    """Its own address answers from its router, and its default routes lead there."""
    router = "provider" if isinstance(node, RentedNode) else "gw"
    own: list[HostAddress] = [node.ipv4] if isinstance(node, RentedNode) else [node.ipv4, node.ipv6]
    defaults = run_on(lab, node.name, "ip", "route", "show", "default")
    defaults += run_on(lab, node.name, "ip", "-6", "route", "show", "default")
    return defaults.count("dev eno1") == 2 and all(answers_ping(lab, router, address) for address in own)


def test_a_lab_without_a_fabric_starts_no_frr(networks: Lab) -> None:
    assert networks.topology.routers == ()
    assert {program.service for program in networks.services()} == {"scheduler", "ipam", "node-agent", "hypervisor"}


@pytest.mark.parametrize("name", ["s1", "s2", "r1", "r2"])
def test_a_node_has_its_own_address_and_default_routes_at_boot_and_again_after_its_power_was_cut(
    networks: Lab, name: str
) -> None:
    node = networks.topology.node(name)
    assert is_at_boot(networks, node)
    for command in (
        ("link", "add", "vmbr0", "type", "bridge"),
        ("link", "set", "eno1", "master", "vmbr0"),
        ("address", "flush", "dev", "eno1"),
        ("neighbour", "add", "proxy", "192.0.2.77", "dev", "eno1"),
    ):
        run("ip", "-n", networks.namespace(name), *command)
    assert not is_at_boot(networks, node)
    faults.cut_power(networks, name)
    assert not answers_ping(networks, name, networks.topology.management.control)
    faults.restore_power(networks, name, services=())
    eventually(lambda: is_at_boot(networks, node), f"{name} is as at boot")
    eventually(partial(answers_ping, networks, name, networks.topology.management.control), "it is managed again")
    assert "vmbr0" not in run_on(networks, name, "ip", "link")
    assert not run_on(networks, name, "ip", "neighbour", "show", "proxy")


def guest_behind(lab: Lab, node: RentedNode, mac: str) -> None:
    """Something on a server that sends with another MAC address."""
    namespace = lab.namespace(node.name)
    run("ip", "-n", namespace, "link", "add", "foreign0", "link", "eno1", "address", mac, "type", "macvlan")
    run("ip", "-n", namespace, "link", "set", "foreign0", "up")


def provider_of(lab: Lab) -> HostAddress:
    assert lab.topology.routing is not None
    return lab.topology.routing.provider.ipv4


def rented(lab: Lab, name: str) -> RentedNode:
    node = lab.topology.node(name)
    assert isinstance(node, RentedNode)
    return node


def test_the_provider_sends_a_server_its_addresses_by_route_or_asks_for_each(networks: Lab) -> None:
    for name in ("r1", "r2"):
        node = rented(networks, name)
        addresses = (node.subnets[0][5], node.ipv6.network[5])
        for address in addresses:
            prefix = f"{address}/{address.max_prefixlen}"
            run("ip", "-n", networks.namespace(name), "address", "add", prefix, "dev", "lo", "nodad")
        if name == "r1":
            for address in addresses:
                reached = partial(answers_ping, networks, "provider", address)
                eventually(reached, f"{address} answers, when r1 has its link-local address")
            asked = run_on(networks, "provider", "ip", "neighbour")
            assert not any(f"{address} " in asked for address in addresses)
        else:
            # The server answers ARP for what is its own; for IPv6 it must be on the link.
            assert answers_ping(networks, "provider", addresses[0])
            assert not answers_ping(networks, "provider", addresses[1])
            asked = run_on(networks, "provider", "ip", "neighbour")
            assert all(f"{address} " in asked for address in addresses)
        for address in addresses:
            prefix = f"{address}/{address.max_prefixlen}"
            run("ip", "-n", networks.namespace(name), "address", "delete", prefix, "dev", "lo")


def test_port_security_drops_and_counts_every_frame_with_a_foreign_mac(networks: Lab) -> None:
    before = refused_frames(networks.topology)
    node = rented(networks, "r1")
    assert answers_ping(networks, "r1", rented(networks, "r2").ipv4)
    assert refused_frames(networks.topology) == before
    namespace = networks.namespace("r1")
    guest_behind(networks, node, "02:00:00:00:66:66")
    try:
        run("ip", "-n", namespace, "address", "add", "203.0.113.60/26", "dev", "foreign0")
        run("ip", "-n", namespace, "route", "add", "203.0.113.1", "dev", "foreign0", "src", "203.0.113.60")
        assert not answers_ping(networks, "r1", provider_of(networks))
    finally:
        run("ip", "-n", namespace, "link", "delete", "foreign0")
    after = refused_frames(networks.topology)
    assert after["r1"] > before["r1"]
    assert after["r2"] == before["r2"]
