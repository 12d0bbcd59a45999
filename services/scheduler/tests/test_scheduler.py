"""What users of the bus see of the scheduler."""

import asyncio
import json
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from vmfabric.contract.errors import Code, Refused

from .conftest import CLUSTER, Json, Start, World, a_node, a_request, until_asked


async def test_a_vm_becomes_ready_with_the_time_of_each_step(world: World) -> None:
    await world.publish("vm.requested", a_request())
    ready = await world.fact("vm.ready.msk.vm1")
    steps = ready["steps_ms"]
    assert 0 < steps["placed"] <= steps["allocated"] <= steps["wired"] <= steps["announced"] + 1000
    assert (await world.desired())[f"vm.msk.{ready['node']}.vm1"]["presence"] == "routed"


async def test_a_deleted_vm_leaves_nothing(world: World) -> None:
    await world.publish("vm.requested", a_request())
    await world.fact("vm.ready.msk.vm1")
    await world.publish("vm.delete.requested", {"cluster": "msk", "vm": "vm1"})
    await world.fact("vm.deleted.msk.vm1")
    order = [subject.rsplit(".msk", 1)[0] for subject, _ in world.facts if ".vm1" in subject]
    back = [
        name
        for name in order
        if name in {"vm.deleting", "route.withdrawn", "iface.removed", "ip.released", "vm.deleted"}
    ]
    assert back == ["vm.deleting", "route.withdrawn", "iface.removed", "ip.released", "vm.deleted"]
    async with asyncio.timeout(5):
        while any(key.startswith("vm.") for key in await world.desired()):
            await asyncio.sleep(0.02)
    assert (await world.ask("vm.list", {}))["vms"] == []
    assert [node["used"]["cpu"] for node in (await world.ask("node.list", {}))["nodes"]] == [0, 0]


async def test_the_same_request_again_gets_the_same_answer(world: World) -> None:
    await world.publish("vm.requested", a_request())
    first = await world.fact("vm.ready.msk.vm1")
    await world.publish("vm.requested.msk.vm1", a_request())
    async with asyncio.timeout(5):
        while world.count("vm.ready.msk.vm1") < 2:
            await asyncio.sleep(0.01)
    assert [body for subject, body in world.facts if subject == "vm.ready.msk.vm1"] == [first, first]
    assert world.count("vm.placed.msk.vm1") == 1


async def test_another_request_for_a_live_vm_is_a_conflict_and_leaves_it_alone(world: World) -> None:
    await world.publish("vm.requested", a_request())
    await world.fact("vm.ready.msk.vm1")
    await world.publish("vm.requested", a_request(cpu=4))
    failed = await world.fact("vm.failed.msk.vm1")
    assert failed["code"] == "conflict"
    assert "cpu (asked 4, has 2)" in failed["message"]
    assert (await world.ask("vm.get", {"cluster": "msk", "vm": "vm1"}))["phase"] == "ready"


@pytest.mark.parametrize(("asked", "wanted"), [({}, "facts"), ({"guest_config": "cloud-init-v1"}, "cloud-init-v1")])
async def test_the_node_hears_in_which_form_the_guest_is_told_of_its_network(
    world: World, asked: Json, wanted: str
) -> None:
    await world.publish("vm.requested", a_request(**asked))
    ready = await world.fact("vm.ready.msk.vm1")
    assert (await world.desired())[f"vm.msk.{ready['node']}.vm1"]["guest_config"] == wanted


@pytest.mark.parametrize(("asked", "wanted"), [({}, False), ({"dhcp": True}, True)])
async def test_the_node_answers_dhcp_only_where_it_is_asked_for(world: World, asked: Json, wanted: bool) -> None:
    await world.publish("vm.requested", a_request(**asked))
    ready = await world.fact("vm.ready.msk.vm1")
    assert (await world.desired())[f"vm.msk.{ready['node']}.vm1"]["dhcp"] is wanted


async def test_a_device_of_lxd_is_refused_where_guests_are_not_lxds(world: World) -> None:
    await world.publish("vm.requested", a_request(guest_config="lxd"))
    failed = await world.fact("vm.failed.msk.vm1")
    assert (failed["step"], failed["code"]) == ("request", "invalid_request")
    assert "guests of cluster msk are kvm's, not lxd's" in failed["message"]
    assert not world.count("vm.placed.msk.vm1")


async def test_a_delete_that_arrives_before_the_create_is_finished(world: World) -> None:
    world.answering = False
    await world.publish("vm.requested", a_request())
    await world.fact("vm.placed.msk.vm1")
    await world.publish("vm.delete.requested", {"cluster": "msk", "vm": "vm1"})
    await world.fact("vm.deleting.msk.vm1", lambda body: body["wired"] is False)
    world.answering = True
    await world.fact("vm.deleted.msk.vm1")
    assert not world.count("vm.failed.msk.vm1")


async def test_a_delete_of_an_unknown_vm_is_answered(world: World) -> None:
    await world.publish("vm.delete.requested", {"cluster": "msk", "vm": "nobody"})
    assert "generation" not in await world.fact("vm.deleted.msk.nobody")


async def test_a_step_that_is_not_answered_fails_and_holds_nothing(world: World) -> None:
    world.answering = False
    await world.publish("vm.requested", a_request())
    await world.fact("vm.deleting.msk.vm1")
    assert world.count("vm.placed.msk.vm1") > 2, "the question was asked again"
    world.answering = True
    failed = await world.fact("vm.failed.msk.vm1")
    assert (failed["step"], failed["code"], failed["held"]) == ("allocate", "step_timed_out", [])


async def test_what_a_silent_node_holds_is_said_once_and_never_released(world: World) -> None:
    await world.publish("vm.requested", a_request())
    await world.fact("vm.ready.msk.vm1")
    world.answering = False
    await world.publish("vm.delete.requested", {"cluster": "msk", "vm": "vm1"})
    failed = await world.fact("vm.failed.msk.vm1")
    assert failed["held"]
    assert not world.count("ip.released.msk.vm1.n1") + world.count("ip.released.msk.vm1.n2")
    world.answering = True
    await world.fact("vm.deleted.msk.vm1")
    assert world.count("vm.failed.msk.vm1") == 1


async def test_a_fact_of_another_generation_changes_nothing(world: World) -> None:
    await world.publish("vm.requested", a_request())
    ready = await world.fact("vm.ready.msk.vm1")
    who = {"cluster": "msk", "vm": "vm1", "node": ready["node"], "generation": ready["generation"]}
    for subject in ("ip.released", "iface.removed", "route.withdrawn"):
        for generation in (who["generation"], who["generation"] + 1):
            body = {**who, "generation": generation, "addresses": []}
            await world.publish(f"{subject}.msk.vm1.{ready['node']}", body)
    await world.publish("vm.requested", a_request("vm2"))
    await world.fact("vm.ready.msk.vm2")
    assert (await world.ask("vm.get", {"cluster": "msk", "vm": "vm1"}))["phase"] == "ready"


async def test_generations_rise_when_a_name_is_used_again(world: World) -> None:
    generations = []
    for _ in range(3):
        await world.publish("vm.requested", a_request())
        ready = await world.fact("vm.ready.msk.vm1")
        generations.append(ready["generation"])
        await world.publish("vm.delete.requested", {"cluster": "msk", "vm": "vm1"})
        await world.fact("vm.deleted.msk.vm1")
        world.facts.clear()
    assert generations == sorted(set(generations))


async def test_many_requests_at_once_never_overcommit_a_node(world: World) -> None:
    for number in range(40):
        await world.publish("vm.requested", a_request(f"vm{number}"))
    async with asyncio.timeout(20):
        while sum(subject.startswith(("vm.ready.", "vm.failed.")) for subject, _ in world.facts) < 40:
            await asyncio.sleep(0.02)
    failed = [body for subject, body in world.facts if subject.startswith("vm.failed.")]
    assert {body["code"] for body in failed} == {"no_node_fits"}
    assert len(failed) == 40 - 16
    assert set(failed[0]["refusals"]) == {"n1", "n2"}
    assert [node["used"]["cpu"] for node in (await world.ask("node.list", {}))["nodes"]] == [16, 16]


@pytest.mark.parametrize(
    "change",
    [
        {"cpu": 0}, {"cpu": -1}, {"cpu": "2"}, {"cpu": True}, {"nope": 1}, {"memory_mb": None},
        {"addresses": [{"family": "ipv6", "address": "fe80::1%x\n exit\nno router bgp"}]},
    ],
)  # fmt: skip
async def test_bad_input_that_names_its_vm_is_answered(world: World, change: Json) -> None:
    await world.publish("vm.requested", a_request(**change))
    failed = await world.fact("vm.failed.msk.vm1")
    assert (failed["step"], failed["code"]) == ("request", "invalid_request")
    assert next(iter(change)) in failed["message"]
    await world.publish("vm.requested", a_request("next"))
    await world.fact("vm.ready.msk.next")
    assert len(world.dead) == 1


@pytest.mark.parametrize("name", ["a.b", "a*", ">", "a b", "a\n", 'a"', "-a", "A", "", "x" * 64])
async def test_a_bad_vm_name_is_a_dead_letter_and_the_next_request_is_served(world: World, name: str) -> None:
    body = json.dumps(a_request(name)).encode()
    await world.publish("vm.requested", body)
    await world.publish("vm.requested", a_request("next"))
    await world.fact("vm.ready.msk.next")
    assert [message.data for message in world.dead] == [body]
    assert not [subject for subject, _ in world.facts if subject.startswith("vm.failed")]


@pytest.mark.parametrize(
    "body",
    [b"", b"not JSON", b"[]", b"\xff\xfe", b'{"cluster":"msk"}', b'{"a":"' + b"x" * 999_990 + b'"}'],
    ids=["empty", "text", "list", "bytes", "nameless", "megabyte"],
)
@pytest.mark.parametrize("subject", ["vm.requested", "vm.delete.requested"])
async def test_what_cannot_be_read_is_kept_and_the_next_request_is_served(
    world: World, subject: str, body: bytes
) -> None:
    await world.publish(subject, body)
    await world.publish("vm.requested", a_request("next"))
    await world.fact("vm.ready.msk.next")
    (dead,) = world.dead
    headers = dead.headers or {}
    assert body.startswith(dead.data)
    assert headers["vmfabric-reason"]
    assert (headers["vmfabric-subject"], headers["vmfabric-bytes"]) == (subject, str(len(body)))


async def test_a_body_that_belongs_to_another_subject_is_answered(world: World) -> None:
    await world.publish("vm.requested.msk.vm2", a_request("vm1"))
    assert "the body belongs to vm.requested.msk.vm1" in (await world.fact("vm.failed.msk.vm1"))["message"]


async def test_an_unknown_cluster_is_answered(world: World) -> None:
    for subject, body in (
        ("vm.requested", a_request(cluster="nowhere")),
        ("vm.delete.requested", {"cluster": "nowhere", "vm": "vm1"}),
    ):
        await world.publish(subject, body)
        assert (await world.fact("vm.failed.nowhere.vm1"))["code"] == "unknown_cluster"
        world.facts.clear()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"gateway": {"ipv4": "10.0.0.1"}}, "node n1 uses itself"),
        ({"gateway": {"ipv4": "192.0.2.1"}}, "node n1 uses itself"),
        ({"bgp": {**CLUSTER["bgp"], "community": {"ipv4": "65536:1"}}}, "community"),
        ({"bgp": {**CLUSTER["bgp"], "reflectors": []}}, "reflectors"),
        ({"bgp": {**CLUSTER["bgp"], "reflectors": [{"address": "10.0.0.11", "asn": 1}]}}, "iBGP"),
        ({"type": "token-ring"}, "type"),
    ],
)
async def test_a_cluster_that_cannot_be_is_refused(world: World, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        await world.ask("cluster.apply", {"spec": {**CLUSTER, **change}})


async def test_an_apply_says_what_it_changes(world: World) -> None:
    wider = {**CLUSTER, "placement": {"policy": "pack"}}
    assert (await world.ask("cluster.apply", {"spec": CLUSTER}))["change"] == "unchanged"
    dry = await world.ask("cluster.apply", {"spec": wider, "dry_run": True})
    assert (dry["change"], dry["fields"], dry["dry_run"]) == ("changed", ["placement"], True)
    assert (await world.ask("cluster.apply", {"spec": wider}))["change"] == "changed"


async def test_what_interfaces_were_made_with_cannot_change_under_vms(world: World) -> None:
    await world.publish("vm.requested", a_request())
    await world.fact("vm.ready.msk.vm1")
    with pytest.raises(Refused, match="while it has 1 VMs"):
        await world.ask("cluster.apply", {"spec": {**CLUSTER, "virtualization": "lxd"}})


async def test_a_change_of_a_cluster_reaches_its_nodes_and_only_what_concerns_them(world: World) -> None:
    async def revisions() -> list[int]:
        bucket = await world.client.jetstream().key_value("desired")
        return [(await bucket.get(f"node.msk.{node}")).revision or 0 for node in ("n1", "n2")]

    before = await revisions()
    await world.ask("cluster.apply", {"spec": {**CLUSTER, "placement": {"policy": "pack"}}})
    changed = {**CLUSTER, "bgp": {**CLUSTER["bgp"], "community": {"ipv4": "65000:200", "ipv6": "65000:600"}}}
    await world.ask("cluster.apply", {"spec": changed})
    async with asyncio.timeout(5):
        while (await world.desired())["node.msk.n2"]["community"]["ipv4"] != "65000:200":
            await asyncio.sleep(0.02)
    assert await revisions() == [max(before) + 1, max(before) + 2]


async def test_a_silent_node_is_lost_and_keeps_its_vms_and_returns(world: World) -> None:
    await world.publish("vm.requested", a_request(node="n1"))
    await world.fact("vm.ready.msk.vm1")
    kept = await world.desired()
    world.beating = False
    await world.fact("node.lost.msk.n1")
    await world.fact("node.lost.msk.n2")
    assert await world.desired() == kept
    await world.publish("vm.requested", a_request("vm2"))
    failed = await world.fact("vm.failed.msk.vm2")
    assert failed["refusals"] == dict.fromkeys(("n1", "n2"), "its node-agent is not heard any more")
    world.beating = True
    await world.fact("node.returned.msk.n1")
    await world.fact("node.returned.msk.n2")
    assert world.count("node.joined.msk.n1") == 1
    await world.publish("vm.requested", a_request("vm3"))
    await world.fact("vm.ready.msk.vm3")


async def test_a_heartbeat_that_cannot_be_read_stops_nothing(world: World) -> None:
    await world.publish("node.heartbeat.msk.n1", b"not JSON")
    await world.publish("node.heartbeat.msk.n9", {"cluster": "msk", "node": "n9", "addresses": [], "vms": 0})
    await world.publish("vm.requested", a_request())
    await world.fact("vm.ready.msk.vm1")
    assert [node["spec"]["name"] for node in (await world.ask("node.list", {}))["nodes"]] == ["n1", "n2"]


async def test_a_scheduler_whose_old_database_was_accepted_takes_nothing_down(bare: World, start: Start) -> None:
    value = {
        "cluster": "msk", "node": "n1", "vm": "vm1", "generation": 5, "presence": "routed",
        "mac": "02:00:00:00:00:01", "addresses": ["198.51.100.1"], "virtualization": "kvm",
        "gateway": {}, "mtu": 1500, "trace_id": "0" * 32,
    }  # fmt: skip
    await bare.publish("$KV.desired.vm.msk.n1.vm1", value)
    await start(accepted=5)
    await until_asked(bare, "cluster.apply", {"spec": CLUSTER})
    await bare.ask("node.apply", {"spec": a_node("n1", 1)})
    await bare.fact("node.joined.msk.n1")
    assert (await bare.desired())["vm.msk.n1.vm1"]["presence"] == "routed"


async def test_a_password_is_never_shown(world: World) -> None:
    await world.ask("cluster.apply", {"spec": {**CLUSTER, "bgp": {**CLUSTER["bgp"], "password": "hush-hush"}}})
    assert "hush" not in json.dumps(await world.ask("cluster.list", {}))


async def test_a_node_with_the_address_of_a_vm_is_refused(world: World) -> None:
    await world.publish("vm.requested", a_request())
    ready = await world.fact("vm.ready.msk.vm1")
    with pytest.raises(Refused, match="VM vm1 of cluster msk has the address") as caught:
        await world.ask("node.apply", {"spec": {**a_node("n3", 3), "address": ready["addresses"][0]["address"]}})
    assert caught.value.code is Code.CONFLICT


async def test_a_node_with_the_address_of_another_is_refused(world: World) -> None:
    with pytest.raises(Refused, match="n1 has the address") as caught:
        await world.ask("node.apply", {"spec": a_node("n3", 1)})
    assert caught.value.code is Code.CONFLICT


async def test_desired_state_is_published_again_when_the_bucket_is_lost(bare: World, start: Start) -> None:
    end = await start()
    await until_asked(bare, "cluster.apply", {"spec": CLUSTER})
    await bare.ask("node.apply", {"spec": a_node("n1", 1)})
    await bare.fact("node.joined.msk.n1")
    await bare.publish("vm.requested", a_request())
    await bare.fact("vm.ready.msk.vm1")
    kept = await bare.desired()
    await end()
    await bare.client.jetstream().delete_key_value("desired")
    await start()
    async with asyncio.timeout(15):
        while True:
            try:
                found = await bare.desired()
            except NotFoundError:
                found = {}
            # With the last generation, of which nothing else may tell.
            if found.pop("scheduler", None) == {"generation": 1} and found == kept:
                break
            await asyncio.sleep(0.05)


async def test_a_restart_with_nothing_to_do_publishes_nothing(bare: World, start: Start) -> None:
    end = await start()
    await until_asked(bare, "cluster.apply", {"spec": CLUSTER})
    await bare.ask("node.apply", {"spec": a_node("n1", 1)})
    await bare.fact("node.joined.msk.n1")
    await bare.publish("vm.requested", a_request())
    await bare.fact("vm.ready.msk.vm1")
    await end()
    stream = bare.client.jetstream()

    async def sequences() -> list[int]:
        return [(await stream.stream_info(name)).state.last_seq for name in ("FACTS", "KV_desired")]

    before = await sequences()
    await start()
    await until_asked(bare, "vm.get", {"cluster": "msk", "vm": "vm1"})
    await bare.ask("cluster.apply", {"spec": CLUSTER})
    assert await sequences() == before


async def test_a_dry_run_answers_only_with_the_node_and_the_reasons(world: World) -> None:
    await world.ask("node.apply", {"spec": {**a_node("n2", 2), "labels": {"disk": "nvme"}}})
    groups = [{"group": "db", "kind": "anti-affinity", "hard": False}]
    await world.publish("vm.requested", a_request(labels={"disk": "nvme"}, groups=groups, dry_run=True))
    said = (await world.fact("vm.decided.msk.vm1"))["decision"]
    assert (said["node"], said["policy"], said["cause"], said["rest"]) == ("n2", "spread", "request", 0)
    assert said["weights"] == {"room": 0.875, "groups": 0.0}
    assert said["others"] == [{"node": "n1", "refused": "it lacks disk=nvme"}]
    await world.publish("vm.requested", a_request(cpu=17, dry_run=True))
    none = await world.fact("vm.decided.msk.vm1", lambda body: "node" not in body["decision"])
    assert {it["refused"] for it in none["decision"]["others"]} == {"cpu: 17 wanted, 16 free"}
    assert (await world.ask("vm.list", {}))["vms"] == []
    assert [subject for subject, _ in world.facts if ".vm1" in subject] == ["vm.decided.msk.vm1"] * 2


async def test_a_dry_run_of_a_vm_that_is_there_is_as_if_it_were_not(world: World) -> None:
    await world.publish("vm.requested", a_request(cpu=10, node="n1"))
    await world.fact("vm.ready.msk.vm1")
    await world.publish("vm.requested", a_request(cpu=12, node="n1", dry_run=True))
    said = (await world.fact("vm.decided.msk.vm1"))["decision"]
    assert (said["node"], said["weights"]["room"]) == ("n1", 0.25)


async def test_explain_and_get_say_why_a_vm_is_where_it_is(world: World) -> None:
    await world.publish("vm.requested", a_request(cpu=4))
    await world.fact("vm.ready.msk.vm1")
    decision = (await world.ask("vm.get", {"cluster": "msk", "vm": "vm1"}))["decision"]
    assert (decision["node"], [other["node"] for other in decision["others"]]) == ("n1", ["n2"])
    findings = (await world.ask("vm.explain", {"cluster": "msk", "vm": "vm1"}))["findings"]
    [why] = [it for it in findings if "chose" in it["sentence"]]
    assert why["is_right"]
    assert why["sentence"].startswith("spread chose n1 for the request at ")
    assert why["sentence"].endswith("with the weight 0.75 (room 0.75 + groups 0). The others: n2: weight 0.75")


async def test_a_node_that_an_operator_has_mended_is_told_to_try_again(world: World) -> None:
    async def answer(message: Msg) -> None:
        await message.respond(b'{"cluster":"msk","node":"n1","sentence":"eth0 is moved into vmbr0 again now"}')

    await world.client.subscribe("iface.retry.msk.n1", cb=answer)
    assert (await world.ask("node.retry", {"cluster": "msk", "node": "n1"}))["sentence"].startswith("eth0 is moved")
    with pytest.raises(Refused, match="the node-agent of n2 does not answer"):
        await world.ask("node.retry", {"cluster": "msk", "node": "n2"})
    with pytest.raises(Refused, match="there is no node n9 in cluster msk"):
        await world.ask("node.retry", {"cluster": "msk", "node": "n9"})


async def test_of_a_deleted_node_nothing_is_wanted_any_more(world: World) -> None:
    await world.ask("node.apply", {"spec": a_node("n3", 3)})
    async with asyncio.timeout(5):
        while "node.msk.n3" not in await world.desired():
            await asyncio.sleep(0.02)
    assert (await world.ask("node.delete", {"cluster": "msk", "node": "n3"}))["change"] == "deleted"
    async with asyncio.timeout(5):
        while "node.msk.n3" in await world.desired():
            await asyncio.sleep(0.02)
    assert [node["spec"]["name"] for node in (await world.ask("node.list", {}))["nodes"]] == ["n1", "n2"]
    assert (await world.ask("node.delete", {"cluster": "msk", "node": "n3"}))["change"] == "unchanged"
