"""What real guests make of the golden files: cloud-init of Debian 12 and 13, and netplan."""

from collections.abc import Callable, Iterable, Iterator
from configparser import ConfigParser
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.guest_config import GuestConfigForm
from vmfabric.lab import cloud_init
from vmfabric.lab.cloud_init import CloudInit, Renderer
from vmfabric.lab.errors import LabError
from vmfabric.node_agent.domain.actual import InterfaceAddress
from vmfabric.node_agent.domain.guest_config.interface import GuestInterface

from .guest_interfaces import CASES, golden

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]  # the first run downloads the programs

V1, V2 = GuestConfigForm.CLOUD_INIT_V1, GuestConfigForm.CLOUD_INIT_V2


@dataclass(frozen=True)
class Network:
    """What a guest will have."""

    addresses: frozenset[InterfaceAddress]
    gateways: frozenset[HostAddress]
    mtu: int
    nameservers: frozenset[HostAddress]


def meant(interface: GuestInterface) -> Network:
    told = (frozenset(it) for it in (interface.addresses, interface.gateways, interface.nameservers))
    addresses, gateways, nameservers = told
    return Network(addresses, gateways, interface.mtu, nameservers)  # type: ignore[arg-type]


def read(
    addresses: Iterable[str], gateways: Iterable[str], mtu: Iterable[str], nameservers: Iterable[str]
) -> Network:
    (one_mtu,) = mtu
    return Network(
        frozenset(map(ip_interface, addresses)),
        frozenset(map(ip_address, gateways)),
        int(one_mtu),
        frozenset(map(ip_address, nameservers)),
    )


def after(text: str, *keys: str) -> Iterator[str]:
    """The words behind one of these keys at the beginning of a line."""
    for line in text.splitlines():
        key, *values = line.replace("=", " ").split() or [""]
        if key in keys:
            yield from values


def of_ifupdown(root: Path) -> Network:
    """As interfaces(5) has it. A `gateway` is on the link, whatever the network."""
    text = (root / "etc/network/interfaces.d/50-cloud-init").read_text()
    assert "post-up" not in text, "that would be a route without onlink"
    return read(after(text, "address"), after(text, "gateway"), after(text, "mtu"), after(text, "dns-nameservers"))


def of_network_manager(root: Path) -> Network:
    """As nm-settings-keyfile(5) has it."""
    (path,) = (root / "etc/NetworkManager/system-connections").iterdir()
    keyfile = ConfigParser()
    keyfile.read_string(path.read_text())
    families = [keyfile[family] for family in ("ipv4", "ipv6") if keyfile.has_section(family)]
    return read(
        (value for family in families for key, value in family.items() if key.startswith("address")),
        (family["gateway"] for family in families if "gateway" in family),
        [keyfile["ethernet"]["mtu"]],
        (server for family in families for server in family.get("dns", "").split(";") if server),
    )


def of_sysconfig(root: Path) -> Network:
    """As sysconfig.txt of initscripts has it: IPADDR and IPADDR1, IPADDR2…, each with its NETMASK."""
    text = (root / "etc/sysconfig/network-scripts/ifcfg-eth0").read_text()
    places = ("", "1", "2")
    addresses = after(text, *(f"IPADDR{place}" for place in places))
    masks = after(text, *(f"NETMASK{place}" for place in places))
    return read(
        (
            *(f"{address}/{mask}" for address, mask in zip(addresses, masks, strict=True)),
            *after(text, "IPV6ADDR", "IPV6ADDR_SECONDARIES"),
        ),
        after(text, "GATEWAY", "IPV6_DEFAULTGW"),
        after(text, "MTU"),
        after(text, "DNS1", "DNS2"),
    )


def of_netplan(root: Path) -> Network:
    """As netplan tells systemd-networkd, systemd.network(5)."""
    text = cloud_init.netplan_for_networkd(root)
    assert text.count("GatewayOnLink=true") == text.count("Gateway=")
    return read(after(text, "Address"), after(text, "Gateway"), after(text, "MTUBytes"), after(text, "DNS"))


READERS: dict[Renderer, tuple[GuestConfigForm, Callable[[Path], Network]]] = {
    Renderer.ENI: (V1, of_ifupdown),
    Renderer.NETWORK_MANAGER: (V1, of_network_manager),
    Renderer.SYSCONFIG: (V1, of_sysconfig),
    Renderer.NETPLAN: (V2, of_netplan),
}


@pytest.fixture(scope="module", params=["of Debian 12", "of Debian 13"])
def any_cloud_init(request: pytest.FixtureRequest) -> CloudInit:
    return cloud_init.of_debian("trixie" if request.param == "of Debian 13" else None)


@pytest.fixture(scope="module")
def cloud_init_of_debian_13() -> CloudInit:
    """Its schema for network configurations is newer than Debian 12."""
    return cloud_init.of_debian("trixie")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("renderer", Renderer)
def test_the_guest_gets_its_addresses_gateways_mtu_and_nameservers(
    any_cloud_init: CloudInit, renderer: Renderer, case: str, tmp_path: Path
) -> None:
    form, network = READERS[renderer]
    any_cloud_init.render(golden(form, case), renderer, tmp_path)
    assert network(tmp_path) == meant(CASES[case])


def test_netplan_looks_for_a_permanent_mac_only_where_there_is_one(any_cloud_init: CloudInit, tmp_path: Path) -> None:
    for case, is_there in (("both_families", True), ("container", False)):
        any_cloud_init.render(golden(V2, case), Renderer.NETPLAN, tmp_path / case)
        assert ("MACAddress=" in cloud_init.netplan_for_networkd(tmp_path / case)) is is_there


@pytest.mark.parametrize("case", CASES)
def test_the_schema_of_cloud_init_allows_the_document(cloud_init_of_debian_13: CloudInit, case: str) -> None:
    """Of version 1. For version 2 cloud-init asks netplan, if it can: its own schema has no on-link."""
    cloud_init_of_debian_13.validate(golden(V1, case))


def test_the_schema_of_cloud_init_refuses_a_document_with_another_word(
    cloud_init_of_debian_13: CloudInit, tmp_path: Path
) -> None:
    wrong = tmp_path / "network-config"
    wrong.write_text(golden(V1, "both_families").read_text().replace("gateway:", "gate-way:"))
    with pytest.raises(LabError, match="'gate-way' was unexpected"):
        cloud_init_of_debian_13.validate(wrong)


def test_netplan_refuses_a_document_with_another_word(any_cloud_init: CloudInit, tmp_path: Path) -> None:
    wrong = tmp_path / "network-config"
    wrong.write_text(golden(V2, "both_families").read_text().replace("on-link:", "on-links:"))
    any_cloud_init.render(wrong, Renderer.NETPLAN, tmp_path)
    with pytest.raises(LabError, match="unknown key 'on-links'"):
        cloud_init.netplan_for_networkd(tmp_path)
