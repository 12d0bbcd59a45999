"""Nothing that is not a plain name or address gets past the border."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from vmfabric.contract.addresses import Community, HostAddress, Mac, Prefix, parse_host
from vmfabric.contract.names import ClusterName, InterfaceName, VmName
from vmfabric.contract.subjects import Template
from vmfabric.contract.vm import VmRequested

REQUEST = {"cluster": "msk", "vm": "vm12", "cpu": 2, "memory_mb": 2048, "disk_gb": 20}


def accepts(kind: Any, value: object) -> bool:
    try:
        TypeAdapter(kind).validate_json(json.dumps(value))
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", ["a", "vm12", "a-b", "0", "x" * 63])
def test_plain_names_are_accepted(name: str) -> None:
    assert accepts(VmName, name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 64,
        "a.b",
        "a*",
        ">",
        "a b",
        "a\n",
        "\na",
        'a"',
        "-a",
        "a-",
        "A",
        "$(id)",
        "a;b",
        "é",
        "a_b",
        None,
        1,
        True,
    ],
)
@pytest.mark.parametrize("kind", [VmName, ClusterName])
def test_other_names_are_refused(kind: object, name: object) -> None:
    assert not accepts(kind, name)


@given(st.text())
def test_every_accepted_name_is_one_token_of_a_subject(name: str) -> None:
    if accepts(VmName, name):
        subject = Template("iface.ready", ("vm",)).render({"vm": name})
        assert subject.split(".") == ["iface", "ready", name]
        assert not set(subject) & set("*> \t\r\n")


@pytest.mark.parametrize("value", ["a.b", "*", ">", "", "a\n", "-a", "x" * 64])
def test_a_subject_is_never_rendered_from_other_text(value: str) -> None:
    with pytest.raises(ValueError, match="cannot be part of a subject"):
        Template("vm.placed", ("vm",)).render({"vm": value})


@pytest.mark.parametrize(
    "address",
    [
        "fe80::1%eth0", "fe80::1%x\n exit\nno router bgp", "010.0.0.1", "1.2.3", "1.2.3.4/24", "::ffff:1.2.3.4",
        "1.2.3.4\n", " 1.2.3.4", "\u0661.2.3.4", "", "::1::", 1, 16909060, None, True,
    ],
)  # fmt: skip
def test_other_addresses_are_refused(address: object) -> None:
    assert not accepts(HostAddress, address)


@given(st.ip_addresses())
def test_every_accepted_address_has_one_spelling(address: object) -> None:
    try:
        parsed = parse_host(str(address))
    except ValueError:
        return
    assert parse_host(str(parsed)) == parsed
    assert not set(str(parsed)) - set("0123456789abcdef:.")


@pytest.mark.parametrize(
    "prefix",
    [
        "10.0.0.1/24",
        "10.0.0.0/0.0.0.255",
        "10.0.0.0/255.255.255.0",
        "10.0.0.0",
        "10.0.0.0/33",
        "fe80::%a/64",
        "::ffff:0:0/96",
    ],
)
def test_other_prefixes_are_refused(prefix: str) -> None:
    assert not accepts(Prefix, prefix)


@pytest.mark.parametrize(
    "mac", ["02:00:00:00:00:0G", "01:00:00:00:00:00", "00:00:00:00:00:00", "02-00-00-00-00-00", "02:00"]
)
def test_other_macs_are_refused(mac: str) -> None:
    assert not accepts(Mac, mac)


@pytest.mark.parametrize(("community", "good"), [
    ("65000:100", True), ("65536:1", False), ("1:65536", False), ("1", False), ("4200000000:1:2", True),
    ("1:2:4294967296", False), ("65000:0100", False), ("no-export", False), ("1:2\n", False), ("1:2 additive", False),
])  # fmt: skip
def test_communities(community: str, good: bool) -> None:
    assert accepts(Community, community) is good


@pytest.mark.parametrize("name", ["vm*", "a" * 16, "%d", "a/b", "vm 1", 'a"b', ""])
def test_other_interface_names_are_refused(name: str) -> None:
    assert not accepts(InterfaceName, name)


@pytest.mark.parametrize(
    "change",
    [
        {"cpu": 0}, {"cpu": -1}, {"cpu": "2"}, {"cpu": True}, {"cpu": 2.0}, {"cpu": 10**30},
        {"nope": 1}, {"vm": None},
        {"memory_mb": 0}, {"disk_gb": 0}, {"addresses": []}, {"guest_config": "netplan"}, {"guest_config": None},
        {"dhcp": 1},
        {"addresses": [{"family": "ipv6", "address": "fe80::1%x"}]},
        {"addresses": [{"family": "ipv4", "address": "2001:db8::1"}]}, {"addresses": [{"family": "ipx"}]},
    ],
)  # fmt: skip
def test_other_requests_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        VmRequested.model_validate_json(json.dumps({**REQUEST, **change}))
