"""What a person reads when their input is wrong."""

import pytest
from pydantic import ValidationError

from vmfabric.contract.admin import ApplyCluster, ApplyNode, ApplyPool
from vmfabric.contract.model import Request
from vmfabric.contract.vm import VmRequested
from vmfabric.runtime.complaints import repeated_field, sentence
from vmfabric.runtime.inbound import UnreadableError, parse

VM = '"cluster":"msk","vm":"vm1","cpu":2,"memory_mb":2048,"disk_gb":20'

NODE = '"name":"n1","cluster":"msk","address":"10.0.0.1"'
CLUSTER = (
    '"name":"msk","type":"ip-fabric","bgp":{"asn":65000,"reflectors":[{"address":"10.0.0.11","asn":65000}],'
    '"community":{"ipv4":"one","ipv6":"65000:1"}}'
)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "not JSON: EOF while parsing an object at line 1 column 1"),
        ("[]", "must be an object"),
        ('{"cluster":"msk","vm":"vm1","cpu":2,"memory_mb":2048}', "disk_gb: is missing"),
        (f'{{{VM},"disc":1}}', "disc: there is no such field"),
        (f'{{{VM},"cpu":"2"}}'.replace('"cpu":2,', ""), "cpu: must be a whole number"),
        (f"{{{VM}}}".replace('"cpu":2', '"cpu":0'), "cpu: must be at least 1"),
        (
            f"{{{VM}}}".replace("vm1", "Vm1"),
            "vm: must be 1 to 63 characters of a-z, 0-9 and -, with no - at either end",
        ),
        (f'{{{VM},"vm":"vm2"}}', "the field 'vm' stands there twice; which one is meant?"),
        (
            f'{{{VM},"addresses":[{{"family":"ipv4","address":"10.0.0.256"}}]}}',
            "addresses.0.address: not an IPv4 or IPv6 address",
        ),
        (
            f'{{{VM},"addresses":[{{"family":"ipv6","address":"fe80::1%eth0"}}]}}',
            "addresses.0.address: a scope id (%) is not allowed",
        ),
        (
            f'{{{VM},"addresses":[{{"family":"ipv4","address":3232235777}}]}}',
            "addresses.0.address: not an IPv4 or IPv6 address",
        ),
        (f'{{{VM},"addresses":[{{"family":"ipx"}}]}}', "addresses.0.family: must be 'ipv4' or 'ipv6'"),
        (f'{{{VM},"labels":{{"Zone":"a"}}}}', "labels.Zone: must be 1 to 63 characters of a-z, 0-9, -, . and /"),
        (
            f'{{{VM},"groups":[{{"group":"db","kind":"affinity"}},{{"group":"db","kind":"anti-affinity"}}]}}',
            "group db is named twice; a VM has one rule for a group",
        ),
    ],
)
def test_a_bad_request_is_told_what_is_wrong_in_plain_words(body: str, said: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        parse(VmRequested, "vm.requested", body.encode())
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("kind", "spec", "said"),
    [
        (ApplyPool, '"name":"a","cluster":"msk","blocks":[]', "spec.blocks: needs at least 1, has 0"),
        (
            ApplyPool,
            '"name":"a","cluster":"msk","blocks":["10.0.0.1/24"]',
            "spec.blocks.0: has bits set behind its length; 10.0.0.0/24 is the prefix",
        ),
        (
            ApplyPool,
            '"name":"a","cluster":"msk","blocks":["10.0.0.0/33"]',
            "spec.blocks.0: not a prefix: '10.0.0.0/33' does not appear to be an IPv4 or IPv6 network",
        ),
        (
            ApplyNode,
            '"name":"n1","cluster":"msk","address":"10.0.0.","capacity":{"cpu":1,"memory_mb":1,"disk_gb":1}',
            "spec.address: not an IPv4 or IPv6 address",
        ),
        (
            ApplyNode,
            f'{NODE},"capacity":{{"cpu":8,"memory_mb":9,"disk_gb":9}},"reserve":{{"cpu":8}}',
            "spec: reserve.cpu is 8 of 8: nothing would be left for VMs",
        ),
        (
            ApplyCluster,
            CLUSTER,
            "spec.bgp.community.ipv4: must be a community such as 65000:100, or a large one such as 65000:1:100",
        ),
    ],
)
def test_a_bad_spec_is_told_what_is_wrong_in_plain_words(kind: type[Request], spec: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate_json(f'{{"spec":{{{spec}}}}}')
    assert sentence(caught.value) == said


def test_a_field_that_stands_twice_is_found_at_any_depth() -> None:
    assert repeated_field(b'{"a":[{"b":1,"c":{"d":1,"d":1}}]}') == "d"
    assert repeated_field(b'{"a":{"b":1},"b":{"a":1}}') is None
