"""An operator asks why a VM is not reachable."""

import asyncio
import json

import pytest
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue

from outside.cluster import CLUSTER, Cluster
from vmfabric.contract.addresses import host_prefix
from vmfabric.contract.desired import BUCKET, VM_KEY
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.explanation import AddressAudit, NodeAudit, VmExplanation
from vmfabric.contract.vm import VmDeleted
from vmfabric.lab import faults
from vmfabric.lab.hosts import run_on
from vmfabric.lab.programs import run

pytestmark = pytest.mark.lab


async def explained(cluster: Cluster, vm: str) -> VmExplanation:
    return await cluster.outside.ask("vm.explain", {"cluster": CLUSTER, "vm": vm}, VmExplanation)


def wrong(found: VmExplanation) -> list[tuple[str, str]]:
    return [(finding.about, finding.sentence) for finding in found.findings if not finding.is_right]


def says(found: VmExplanation, about: str, words: str) -> bool:
    return any(about == each and words in sentence for each, sentence in wrong(found))


async def test_of_a_vm_that_answers_everything_is_right(cluster: Cluster) -> None:
    await cluster.request("other", node="n1")
    await cluster.ready("other")
    await cluster.request("vm1", node="n1", dhcp=True)
    ready = await cluster.ready("vm1")
    await cluster.reachable(ready)
    found = await explained(cluster, "vm1")
    assert wrong(found) == []
    assert "its DHCP requests on vm1_net0 are answered" in " ".join(finding.sentence for finding in found.findings)
    assert {finding.about for finding in found.findings} == {
        *("scheduler", "ipam", "bucket", "node-agent", "kernel", "dhcp", "frr", "reflectors")
    }
    told = [finding.sentence for finding in found.findings if "is advertised to" in finding.sentence]
    prefixes = [str(host_prefix(it.address)) for it in ready.addresses]
    assert [sentence.split()[0] for sentence in told] == prefixes


async def test_each_part_that_is_wrong_is_named(cluster: Cluster) -> None:
    await cluster.request("vm1", node="n1")
    ready = await cluster.ready("vm1")
    await cluster.reachable(ready)
    faults.kill_service(cluster.lab, "node-agent", "n1")
    try:
        run_on(cluster.lab, "n1", "ip", "route", "flush", "proto", "86")
        async with asyncio.timeout(10):
            while not says(found := await explained(cluster, "vm1"), "frr", "zebra prefers"):
                await asyncio.sleep(0.2)
        about, sentence = wrong(found)[0]
        assert about == "node-agent"
        assert sentence == found.verdict
        assert "the node-agent of n1 does not answer" in sentence
    finally:
        await asyncio.to_thread(faults.start_service, cluster.lab, "node-agent", "n1")
    await cluster.reachable(ready)
    faults.kill_frr(cluster.lab, "n1", "bgpd")
    try:
        assert says(await explained(cluster, "vm1"), "frr", "bgpd of this node does not run")
    finally:
        await asyncio.to_thread(faults.start_frr, cluster.lab, "n1")
    await cluster.settled()


async def test_a_vm_that_is_not_there_is_explained_by_its_end(cluster: Cluster) -> None:
    await cluster.request("huge", memory_mb=10_000_000)
    failed = await cluster.failed("huge")
    assert failed.message in (await explained(cluster, "huge")).verdict
    await cluster.request("vm1")
    await cluster.ready("vm1")
    await cluster.outside.publish("vm.delete.requested", {"cluster": CLUSTER, "vm": "vm1"})
    await cluster.outside.wait_for(VmDeleted, vm="vm1")
    assert "it was deleted" in (await explained(cluster, "vm1")).verdict
    with pytest.raises(Refused, match="nobody has heard of VM unheard-of") as refused:
        await explained(cluster, "unheard-of")
    assert refused.value.code is Code.UNKNOWN_VM


async def audited(cluster: Cluster, node: str) -> NodeAudit:
    return await cluster.outside.ask("node.audit", {"cluster": CLUSTER, "node": node}, NodeAudit)


async def test_an_audit_names_what_is_wrong_on_a_node_and_nothing_else(cluster: Cluster) -> None:
    names = [f"vm{number}" for number in range(5)]
    for name in names:
        await cluster.request(name, node="n1")
    for name in names:
        await cluster.reachable(await cluster.ready(name))
    clean = await audited(cluster, "n1")
    assert (clean.vms, clean.findings) == (5, ())
    faults.kill_service(cluster.lab, "node-agent", "n1")
    try:
        run_on(cluster.lab, "n1", "ip", "route", "flush", "dev", "vm3_net0")
        async with asyncio.timeout(10):
            while {it.vm for it in (await audited(cluster, "n1")).findings} != {None, "vm3"}:
                await asyncio.sleep(0.2)
    finally:
        await asyncio.to_thread(faults.start_service, cluster.lab, "node-agent", "n1")
    async with asyncio.timeout(15):
        while (await audited(cluster, "n1")).findings:
            await asyncio.sleep(0.2)
    with pytest.raises(Refused, match="no node n7 in cluster msk"):
        await audited(cluster, "n7")


def configure(cluster: Cluster, host: str, *lines: str) -> None:
    """As an operator does it, in the FRR of a host."""
    topology, router = cluster.lab.topology, cluster.lab.router(host)
    run(
        "vtysh",
        "-N",
        topology.namespace(router.name),
        "-c",
        "configure terminal",
        *(w for it in lines for w in ("-c", it)),
    )


async def until_audited(cluster: Cluster, node: str, *words: str) -> None:
    """The audit says each of these of the reflectors, and nothing when there are none."""
    async with asyncio.timeout(15):
        while True:
            said = [it.sentence for it in (await audited(cluster, node)).findings]
            if bool(said) == bool(words) and all(any(each in sentence for sentence in said) for each in words):
                return
            await asyncio.sleep(0.2)


async def test_what_a_reflector_sends_to_a_node_and_should_not_is_named(cluster: Cluster) -> None:
    await cluster.request("vm1", node="n1")
    await cluster.reachable(await cluster.ready("vm1"))
    mark, announce = (
        ("route-map strangers permit 10", "set community 65000:100"),
        (
            "router bgp 65000",
            "address-family ipv4 unicast",
        ),
    )
    configure(cluster, "n1", *mark, *announce, "network 198.51.100.99/32 route-map strangers")
    try:
        sent = "sends 198.51.100.99/32 to n1, which should not announce it"
        await until_audited(cluster, "n1", f"reflector 10.0.0.11 {sent}", f"reflector 10.0.0.12 {sent}")
        assert (await audited(cluster, "n2")).findings == ()
    finally:
        configure(cluster, "n1", *announce, "no network 198.51.100.99/32 route-map strangers")
        configure(cluster, "n1", "no route-map strangers")
    await until_audited(cluster, "n1")


def filter_what_n1_says(cluster: Cluster, *, on: bool) -> None:
    """At one reflector. FRR asks a dynamic neighbour's peer group for its filters only when a session begins."""
    word = "" if on else "no "
    inward = ("router bgp 65000", "address-family ipv4 unicast", f"{word}neighbor clients route-map nothing in")
    configure(cluster, "rr1", "route-map nothing deny 10", *inward, "end", "clear bgp 10.0.0.1")


async def test_a_reflector_that_has_not_what_a_node_announces_is_named(cluster: Cluster) -> None:
    await cluster.request("vm1", node="n1")
    ready = await cluster.ready("vm1")
    await cluster.reachable(ready)
    prefix = host_prefix(ready.addresses[0].address)
    lacking = ("reflectors", f"reflector 10.0.0.11 has no route to {prefix}, which n1 should announce")
    filter_what_n1_says(cluster, on=True)
    try:
        async with asyncio.timeout(20):
            while wrong(await explained(cluster, "vm1")) != [lacking]:
                await asyncio.sleep(0.2)
        assert lacking[1] in [it.sentence for it in (await audited(cluster, "n1")).findings]
    finally:
        filter_what_n1_says(cluster, on=False)
    await until_audited(cluster, "n1")


async def test_a_vm_that_only_the_bucket_knows_is_named_and_removed_with_a_word(cluster: Cluster) -> None:
    await cluster.request("vm1", node="n1")
    ready = await cluster.ready("vm1")
    bucket = await cluster.outside.client.jetstream().key_value(BUCKET)
    known = VM_KEY.render({"cluster": CLUSTER, "node": "n1", "vm": "vm1"})
    stray = json.loads((await bucket.get(known)).value or b"")
    stray |= {"vm": "ghost", "generation": stray["generation"] + 1000, "addresses": ["198.51.100.200"]}
    key = VM_KEY.render({"cluster": CLUSTER, "node": "n1", "vm": "ghost"})
    await bucket.put(key, json.dumps(stray).encode())
    async with asyncio.timeout(15):
        while "ghost_net0" not in run_on(cluster.lab, "n1", "ip", "link"):
            await asyncio.sleep(0.1)
        while {it.vm for it in (await audited(cluster, "n1")).findings} != {"ghost"}:
            await asyncio.sleep(0.2)
    await cluster.outside.ask("node.audit", {"cluster": CLUSTER, "node": "n1", "repair": True}, NodeAudit)
    async with asyncio.timeout(15):
        while "ghost_net0" in run_on(cluster.lab, "n1", "ip", "link"):
            await asyncio.sleep(0.1)
        while (await audited(cluster, "n1")).findings or await has_key(bucket, key):
            await asyncio.sleep(0.2)
    await cluster.reachable(ready)
    addresses = await cluster.outside.ask("ip.audit", {"cluster": CLUSTER}, AddressAudit)
    assert addresses.findings == ()
    assert addresses.addresses >= len(ready.addresses)


async def has_key(bucket: KeyValue, key: str) -> bool:
    try:
        await bucket.get(key)
    except KeyNotFoundError:
        return False
    return True
