"""What a guest is told of its network, in each form."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vmfabric.contract.cluster import Virtualization
from vmfabric.contract.guest_config import GuestConfigForm
from vmfabric.contract.iface import IfaceReady
from vmfabric.node_agent.domain.guest_config import cloud_init_v1, cloud_init_v2, lxd
from vmfabric.node_agent.domain.guest_config.interface import GuestInterface
from vmfabric.node_agent.facts import confirmation
from vmfabric.node_agent.samples import a_vm

from .guest_interfaces import CASES, golden


def container(interface: GuestInterface) -> str:
    return lxd.render(replace(interface, is_network_card=False), "vm1_eth0")


RENDERERS: dict[GuestConfigForm, Callable[[GuestInterface], str]] = {
    GuestConfigForm.CLOUD_INIT_V1: cloud_init_v1.render,
    GuestConfigForm.CLOUD_INIT_V2: cloud_init_v2.render,
    GuestConfigForm.LXD: container,
}

macs = st.binary(min_size=5, max_size=5).map(lambda octets: f"02:{octets.hex(':')}")
addresses = st.lists(
    st.one_of(
        st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map(IPv4Interface),
        st.tuples(st.ip_addresses(v=6), st.integers(0, 128)).map(IPv6Interface),
    ),
    min_size=1,
    unique=True,
)


@st.composite
def interfaces(draw: st.DrawFn) -> GuestInterface:
    own = draw(addresses)
    versions = sorted({address.version for address in own})
    return GuestInterface(
        mac=draw(macs),
        is_network_card=draw(st.booleans()),
        mtu=draw(st.integers(576, 65535)),
        addresses=tuple(own),
        gateways=tuple(draw(st.ip_addresses(v=version)) for version in versions),
        nameservers=tuple(draw(st.lists(st.ip_addresses()))),
    )


@pytest.mark.parametrize("form", RENDERERS)
@pytest.mark.parametrize("case", CASES)
def test_the_document_is_the_golden_one(form: GuestConfigForm, case: str) -> None:
    assert RENDERERS[form](CASES[case]) == golden(form, case).read_text()


@given(interfaces())
def test_netplan_reads_what_is_meant_whatever_the_addresses_look_like(interface: GuestInterface) -> None:
    """YAML has numbers with colons: without quotes 12:34:56:10:11:12 would be one."""
    ethernet = yaml.safe_load(cloud_init_v2.render(interface))["ethernets"]["eth0"]
    assert ethernet.get("match") == ({"macaddress": interface.mac} if interface.is_network_card else None)
    assert ethernet["addresses"] == [str(address) for address in interface.addresses]
    assert [route["via"] for route in ethernet["routes"]] == [str(gateway) for gateway in interface.gateways]
    assert all(route["on-link"] is True for route in ethernet["routes"])


@given(interfaces())
def test_one_subnet_of_each_family_has_the_gateway(interface: GuestInterface) -> None:
    """ifupdown would fail at a second default route."""
    (physical,) = yaml.safe_load(cloud_init_v1.render(interface))["config"]
    assert [subnet["address"] for subnet in physical["subnets"]] == [str(address) for address in interface.addresses]
    gateways = [ip_address(subnet["gateway"]) for subnet in physical["subnets"] if "gateway" in subnet]
    assert sorted(gateways, key=str) == sorted(interface.gateways, key=str)
    assert physical.get("mac_address") == (interface.mac if interface.is_network_card else None)


@given(interfaces())
def test_an_lxd_container_gets_the_end_of_the_veth_and_the_addresses_from_cloud_init(
    interface: GuestInterface,
) -> None:
    document: dict[str, Any] = yaml.safe_load(lxd.render(interface, "vm1_eth0"))
    nic = document["devices"]["eth0"]
    assert (nic["nictype"], nic["parent"], nic["hwaddr"]) == ("physical", "vm1_eth0", interface.mac)
    assert all(isinstance(value, str) for value in nic.values()), "LXD takes nothing but strings"
    assert document["config"]["cloud-init.network-config"] == cloud_init_v2.render(interface)


def ready(form: GuestConfigForm, virtualization: Virtualization) -> IfaceReady:
    said = confirmation(a_vm(virtualization=virtualization, guest_config=form))
    assert isinstance(said, IfaceReady)
    return said


@pytest.mark.parametrize("virtualization", Virtualization)
@pytest.mark.parametrize("form", GuestConfigForm)
def test_the_plain_facts_are_there_whatever_the_form(form: GuestConfigForm, virtualization: Virtualization) -> None:
    assert ready(form, virtualization).guest == ready(GuestConfigForm.FACTS, virtualization).guest


def test_who_wants_plain_facts_gets_nothing_else() -> None:
    assert ready(GuestConfigForm.FACTS, Virtualization.KVM).guest_config is None


@pytest.mark.parametrize("virtualization", Virtualization)
@pytest.mark.parametrize("form", [GuestConfigForm.CLOUD_INIT_V1, GuestConfigForm.CLOUD_INIT_V2])
def test_a_guest_is_told_its_addresses_and_the_gateway_of_each_family(
    form: GuestConfigForm, virtualization: Virtualization
) -> None:
    said = ready(form, virtualization).guest_config
    assert said is not None
    assert said.form is form
    for text in ("10.0.0.1/32", "2001:db8::1/128", "169.254.0.1", "fe80::1"):
        assert text in said.document
    assert ("02:00:00:00:00:01" in said.document) is (virtualization is Virtualization.KVM)


def test_an_lxd_container_is_given_the_interface_that_was_made_for_it() -> None:
    said = ready(GuestConfigForm.LXD, Virtualization.LXD)
    assert said.guest_config is not None
    assert yaml.safe_load(said.guest_config.document)["devices"]["eth0"]["parent"] == said.guest_interface


def test_a_guest_on_a_tap_has_no_veth_to_give_to_a_container() -> None:
    assert ready(GuestConfigForm.LXD, Virtualization.KVM).guest_config is None
