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

pytestmark = pytest.mark.lab


async def explained(cluster: Cluster, vm: str) -> VmExplanation:
    return await cluster.outside.ask("vm.explain", {"cluster": CLUSTER, "vm": vm}, VmExplanation)


def wrong(found: VmExplanation) -> list[tuple[str, str]]:
    return [(finding.about, finding.sentence) for finding in found.findings if not finding.is_right]


def says(found: VmExplanation, about: str, words: str) -> bool:
    return any(about == each and words in sentence for each, sentence in wrong(found))


async def test_of_a_vm_that_answers_everything_is_right(cluster: Cluster) -> None:
    await cluster.request("vm1", node="n1")
    ready = await cluster.ready("vm1")
    await cluster.reachable(ready)
    found = await explained(cluster, "vm1")
    assert wrong(found) == []
    assert {finding.about for finding in found.findings} == {
        *("scheduler", "ipam", "bucket", "node-agent", "kernel", "frr")
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
    with pytest.raises(Refused, match="nobody has heard of VM nobody") as refused:
        await explained(cluster, "nobody")
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
