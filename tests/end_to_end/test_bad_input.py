"""Input that cannot be is answered or kept with its reason, and the next request is served."""

import asyncio
import json
from typing import Any

import pytest

from outside.cluster import CLUSTER, Cluster
from vmfabric.contract.admin import Applied
from vmfabric.contract.errors import Refused

pytestmark = pytest.mark.lab

GOOD: dict[str, Any] = {"cluster": CLUSTER, "vm": "bad", "cpu": 1, "memory_mb": 64, "disk_gb": 1}

ANSWERED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown cluster": ({"cluster": "nowhere"}, "unknown_cluster"),
    "unknown field": ({"colour": "red"}, "invalid_request"),
    "missing field": ({"cpu": None}, "invalid_request"),
    "no cpu": ({"cpu": 0}, "invalid_request"),
    "negative cpu": ({"cpu": -1}, "invalid_request"),
    "cpu as text": ({"cpu": "2"}, "invalid_request"),
    "cpu as true": ({"cpu": True}, "invalid_request"),
    "scope id": (
        {"addresses": [{"family": "ipv6", "address": "fe80::1%x\n exit\nno router bgp"}]},
        "invalid_request",
    ),
    "unknown pool": ({"addresses": [{"family": "ipv4", "pool": "nowhere"}]}, "unknown_pool"),
    "family not in pool": ({"addresses": [{"family": "ipv6", "pool": "zone"}]}, "family_not_in_pool"),
    "too large": ({"cpu": 1000}, "no_node_fits"),
    "unknown node": ({"node": "n9"}, "unknown_node"),
}

DEAD: dict[str, bytes] = {
    "not JSON": b"this is not JSON",
    "empty": b"",
    "one megabyte": json.dumps({**GOOD, "colour": "x" * 1_000_000}).encode(),
    **{
        f"VM name {name[:10]!r}": json.dumps({**GOOD, "vm": name}).encode()
        for name in ("a.b", "a*", ">", "a b", "a\nb", 'a"b', "-a", "Aa", "", "x" * 64)
    },
}


async def serves_the_next(cluster: Cluster) -> None:
    await cluster.request("next")
    await cluster.ready("next")


@pytest.mark.parametrize("case", sorted(ANSWERED))
async def test_a_bad_request_is_answered_with_a_code_and_a_sentence(cluster: Cluster, case: str) -> None:
    change, code = ANSWERED[case]
    body = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    await cluster.outside.publish("vm.requested", body)
    failed = await cluster.failed("bad")
    assert failed.code == code
    assert len(failed.message.split()) > 3, "a sentence that a person can act on"
    assert not failed.held
    await serves_the_next(cluster)


async def test_what_cannot_be_read_is_kept_with_its_reason(cluster: Cluster) -> None:
    for body in DEAD.values():
        await cluster.outside.client.publish("vm.requested", body)
    async with asyncio.timeout(15):
        while len(dead := [it for it in cluster.outside.heard if it.subject.startswith("dead.")]) < len(DEAD):
            await asyncio.sleep(0.02)
    assert {it.body[:1000] for it in dead} == {body[:1000] for body in DEAD.values()}
    assert all(it.headers["vmfabric-reason"] for it in dead)
    await serves_the_next(cluster)


@pytest.mark.parametrize(
    ("subject", "spec", "sentence"),
    [
        ("pool.apply", {"name": "twice", "cluster": CLUSTER, "blocks": ["198.51.100.0/25"]}, "overlap"),
        ("pool.apply", {"name": "public", "cluster": CLUSTER, "blocks": ["198.51.100.128/25"]}, "198.51.100."),
        ("pool.apply", {"name": "stray", "cluster": CLUSTER, "blocks": ["192.168.99.0/24"]}, "network"),
        ("node.apply", {"name": "n9", "cluster": "nowhere", "address": "10.0.0.9",
                        "capacity": {"cpu": 1, "memory_mb": 1, "disk_gb": 1}}, "no cluster"),
    ],
)  # fmt: skip
async def test_an_apply_that_cannot_be_says_what_is_in_the_way(
    cluster: Cluster, subject: str, spec: dict[str, Any], sentence: str
) -> None:
    await cluster.request("vm1")
    await cluster.ready("vm1")
    with pytest.raises(Refused, match=sentence):
        await cluster.outside.ask(subject, {"spec": spec}, Applied)
    await serves_the_next(cluster)


async def test_a_gateway_that_a_node_uses_is_refused(cluster: Cluster) -> None:
    with pytest.raises(Refused, match="uses itself"):
        await cluster.apply(gateway={"ipv4": "10.0.0.1"})
