"""A node's copy of its desired state, against a real server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from vmfabric.contract.addresses import parse_host
from vmfabric.contract.cluster import Gateway, Virtualization
from vmfabric.contract.desired import DesiredVm, PointToPoint, Presence
from vmfabric.runtime import mirror as mirrors
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.desired import purge, put
from vmfabric.runtime.mirror import Mirror
from vmfabric.runtime.snapshot import Confirmations


def a_vm(
    name: str = "vm1", *, generation: int = 1, presence: Presence = Presence.ROUTED, node: str = "n1"
) -> DesiredVm:
    return DesiredVm(
        cluster="msk",
        node=node,
        vm=name,
        generation=generation,
        presence=presence,
        mac="02:00:00:00:00:01",
        addresses=(parse_host("198.51.100.1"),),
        guest_addresses=(),
        virtualization=Virtualization.KVM,
        wiring=PointToPoint(gateway=Gateway()),
        trace_id="0" * 32,
    )


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with Bus(nats_url, name="test") as bus:
        await bus.connected()
        yield bus


def a_mirror(bus: Bus, directory: Path) -> Mirror:
    return Mirror(
        bus,
        cluster="msk",
        node="n1",
        snapshot=directory / "desired.json",
        on_change=lambda _vm: None,
        bucket_seconds=0.2,
    )


@pytest.fixture
async def mirror(bus: Bus, tmp_path: Path) -> AsyncIterator[Mirror]:
    mirror = a_mirror(bus, tmp_path)
    task = asyncio.create_task(mirror.run())
    await until(lambda: mirror.complete)
    yield mirror
    task.cancel()
    await asyncio.wait({task})


async def test_an_empty_bucket_is_read_whole(mirror: Mirror) -> None:
    assert not mirror.vms


async def test_values_of_this_node_arrive_and_those_of_others_do_not(bus: Bus, mirror: Mirror) -> None:
    await bus.send([put(a_vm("other", node="n2")), put(a_vm())])
    await until(lambda: bool(mirror.vms))
    assert {name: it.value for name, it in mirror.vms.items()} == {"vm1": a_vm()}


async def test_values_written_before_the_start_are_read(bus: Bus, tmp_path: Path) -> None:
    await bus.send([put(a_vm(f"vm{number}")) for number in range(100)])
    mirror = a_mirror(bus, tmp_path)
    task = asyncio.create_task(mirror.run())
    await until(lambda: mirror.complete)
    assert len(mirror.vms) == 100
    task.cancel()
    await asyncio.wait({task})


async def test_a_disk_that_takes_nothing_stops_nobody_and_is_tried_again(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "_SAVE_AGAIN_SECONDS", 0.05)
    directory = tmp_path / "state"
    mirror, confirmations = a_mirror(bus, directory), Confirmations(directory / "confirmed.json")
    directory.write_text("a file is in the way")
    task = asyncio.create_task(mirror.run())
    await bus.send([put(a_vm())])
    await until(lambda: "vm1" in mirror.vms)
    mirror.save()
    confirmations.confirm(mirror.vms["vm1"])
    confirmations.save()
    directory.unlink()
    directory.mkdir()
    await until((directory / "desired.json").exists)
    confirmations.save()
    assert Confirmations(directory / "confirmed.json").is_confirmed(mirror.vms["vm1"])
    assert not task.done()
    task.cancel()
    await asyncio.wait({task})
    assert a_mirror(bus, directory).vms == mirror.vms


async def test_a_lower_generation_does_not_replace_a_higher(bus: Bus, mirror: Mirror) -> None:
    await bus.send([put(a_vm(generation=2))])
    # The bucket keeps one value of a key: one that is replaced at once may not be seen at all.
    await until(lambda: "vm1" in mirror.vms)
    await bus.send([put(a_vm(generation=1, presence=Presence.ABSENT))])
    await bus.send([put(a_vm("last"))])
    await until(lambda: "last" in mirror.vms)
    assert mirror.vms["vm1"].value.generation == 2


async def test_a_key_that_vanishes_takes_nothing_away_unless_absence_was_said(bus: Bus, mirror: Mirror) -> None:
    gone, stays = a_vm("gone"), a_vm("stays")
    await bus.send([put(gone), put(stays)])
    await bus.send([put(a_vm("gone", presence=Presence.ABSENT))])
    await until(lambda: "gone" in mirror.vms and mirror.vms["gone"].value.presence is Presence.ABSENT)
    await bus.send([purge(stays.key()), purge(gone.key())])
    await until(lambda: "gone" not in mirror.vms)
    assert "stays" in mirror.vms


async def test_a_deleted_bucket_takes_nothing_away_and_is_followed_again(bus: Bus, mirror: Mirror) -> None:
    await bus.send([put(a_vm())])
    await until(lambda: "vm1" in mirror.vms)
    await bus.jetstream.delete_key_value("desired")
    await bus.ensure_streams()
    await bus.send([put(a_vm("vm2"))])
    await until(lambda: "vm2" in mirror.vms)
    assert "vm1" in mirror.vms


async def test_a_consumer_that_died_with_its_server_is_made_anew(bus: Bus, mirror: Mirror) -> None:
    for consumer in await bus.jetstream.consumers_info("KV_desired"):
        await bus.jetstream.delete_consumer("KV_desired", consumer.name)
    await bus.send([put(a_vm())])
    await until(lambda: "vm1" in mirror.vms)


async def test_the_snapshot_serves_while_the_bus_is_away(bus: Bus, tmp_path: Path) -> None:
    mirror = a_mirror(bus, tmp_path)
    task = asyncio.create_task(mirror.run())
    await bus.send([put(a_vm())])
    await until(lambda: bool(mirror.vms))
    task.cancel()
    await asyncio.wait({task})
    async with Bus("nats://127.0.0.1:1", name="away") as away:
        restarted = a_mirror(away, tmp_path)
        task = asyncio.create_task(restarted.run())
        await until(lambda: restarted.complete)
        assert restarted.vms["vm1"].value == a_vm()
        task.cancel()
        await asyncio.wait({task})


async def test_a_bucket_that_answers_comes_before_the_snapshot(bus: Bus, tmp_path: Path) -> None:
    mirror = a_mirror(bus, tmp_path)
    task = asyncio.create_task(mirror.run())
    await bus.send([put(a_vm())])
    await until(lambda: bool(mirror.vms))
    task.cancel()
    await asyncio.wait({task})
    absent = a_vm(presence=Presence.ABSENT)
    await bus.send([put(absent)])
    restarted = a_mirror(bus, tmp_path)
    assert not restarted.complete
    task = asyncio.create_task(restarted.run())
    await until(lambda: restarted.complete)
    assert restarted.vms["vm1"].value == absent
    assert not restarted.remembered
    task.cancel()
    await asyncio.wait({task})


async def test_a_snapshot_that_cannot_be_read_is_set_aside(bus: Bus, tmp_path: Path) -> None:
    (tmp_path / "desired.json").write_text('{"vms": {"vm1"')
    assert not a_mirror(bus, tmp_path).complete
    assert (tmp_path / "desired.unreadable").exists()


async def test_a_confirmation_survives_a_restart_and_ends_with_a_new_revision(
    bus: Bus, mirror: Mirror, tmp_path: Path
) -> None:
    await bus.send([put(a_vm())])
    await until(lambda: bool(mirror.vms))
    path = tmp_path / "confirmed.json"
    confirmations = Confirmations(path)
    first = mirror.vms["vm1"]
    confirmations.confirm(first)
    confirmations.save()
    assert Confirmations(path).is_confirmed(first)
    await bus.send([put(a_vm())])
    await until(lambda: mirror.vms["vm1"].revision != first.revision)
    assert not Confirmations(path).is_confirmed(mirror.vms["vm1"])
