"""ipam beside the scheduler: what an audit says, and what its repair releases."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest
from ipam_world import World

from vmfabric.contract.addresses import parse_host
from vmfabric.contract.admin import ListOfCluster, VmPhase, Vms, VmState
from vmfabric.contract.cluster import Gateway, Virtualization
from vmfabric.contract.desired import DesiredVm, PointToPoint, Presence
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.explanation import AuditAddresses
from vmfabric.contract.ip import AllocatedAddress
from vmfabric.contract.vm import VmSize
from vmfabric.ipam.auditing import Auditing

ASKED = AuditAddresses(cluster="msk")
REPAIR = AuditAddresses(cluster="msk", repair=True)


class Others:
    """The scheduler and the bucket."""

    def __init__(self, world: World, *, is_ignorant: bool = False) -> None:
        """`is_ignorant`: the scheduler has no cluster msk."""
        self.world = world
        self.is_ignorant = is_ignorant
        self.vms: dict[str, VmState] = {}
        self.bucket: dict[str, bytes] = {}

    def auditing(self) -> Auditing:
        return Auditing(
            self.world.writer,
            self.world.records,
            self.world.clock,
            list_vms=self._list,
            read_bucket=self._read,
        )

    async def findings(self, asked: AuditAddresses = ASKED) -> list[str]:
        self.world.clock.pass_by(61)
        return [it.sentence for it in (await self.auditing().audit(asked)).findings]

    def knows(self, vm: str, *addresses: str) -> None:
        self.vms[vm] = VmState(
            cluster="msk",
            vm=vm,
            node="n1",
            generation=1,
            phase=VmPhase.READY,
            size=VmSize(cpu=1, memory_mb=64, disk_gb=1),
            mac="02:00:00:00:00:01",
            addresses=tuple(AllocatedAddress(address=parse_host(it), pool="main") for it in addresses),
            since=self.world.clock.now() - timedelta(hours=1),
        )

    def wants(self, vm: str, presence: Presence) -> None:
        value = DesiredVm(
            cluster="msk",
            node="n1",
            vm=vm,
            generation=1,
            presence=presence,
            mac="02:00:00:00:00:01",
            addresses=(),
            guest_addresses=(),
            virtualization=Virtualization.KVM,
            wiring=PointToPoint(gateway=Gateway()),
            trace_id="0" * 32,
        )
        self.bucket[value.key()] = value.to_bytes()

    async def _list(self, asked: ListOfCluster) -> Vms:
        if self.is_ignorant:
            raise Refused(Code.UNKNOWN_CLUSTER, "there is no cluster msk")
        names = sorted(name for name in self.vms if name > asked.after)[:2]
        more = bool(names) and names[-1] != max(self.vms)
        return Vms(vms=tuple(self.vms[name] for name in names), next=names[-1] if more else None)

    async def _read(self, _cluster: str) -> Mapping[str, bytes]:
        return self.bucket


async def placed(world: World, *vms: str) -> Sequence[Sequence[str]]:
    await world.pool("10.0.0.0/24")
    return [await world.place(vm) for vm in vms]


class Promises:
    """Each is run over both stores."""

    async def test_where_both_agree_nothing_is_said(self, world: World) -> None:
        others = Others(world)
        for vm, addresses in zip(("vm1", "vm2", "vm3"), await placed(world, "vm1", "vm2", "vm3"), strict=True):
            others.knows(vm, *addresses)
        assert await others.findings() == []

    async def test_an_address_of_a_vm_that_nobody_knows_is_named_and_released_with_a_word(self, world: World) -> None:
        others = Others(world)
        await placed(world, "vm1")
        (said,) = await others.findings()
        assert "10.0.0.0 is allocated for vm1" in said
        assert await others.findings() == [said], "an audit alone changes nothing"
        await others.findings(REPAIR)
        assert await others.findings() == []
        [record] = await world.records.records("msk", None, 10)
        assert record.state == "quarantined"

    async def test_addresses_of_a_cluster_that_only_ipam_knows_are_named(self, world: World) -> None:
        others = Others(world, is_ignorant=True)
        await placed(world, "vm1")
        (said,) = await others.findings()
        assert "10.0.0.0 is allocated for vm1" in said

    async def test_a_cluster_that_nobody_knows_is_not_called_right(self, world: World) -> None:
        await world.pool("10.0.0.0/24", cluster="spb")
        with pytest.raises(Refused, match="cluster msk has neither a pool nor a VM"):
            await Others(world).findings()
        await world.pool("10.0.1.0/24", name="own")
        assert await Others(world).findings() == []

    async def test_what_is_young_is_on_its_way(self, world: World) -> None:
        await placed(world, "vm1")
        assert not (await Others(world).auditing().audit(ASKED)).findings

    async def test_an_address_that_a_node_has_or_may_have_is_never_released(self, world: World) -> None:
        others = Others(world)
        await placed(world, "vm1")
        others.wants("vm1", Presence.ROUTED)
        (said,) = await others.findings(REPAIR)
        assert "the scheduler's database is older" in said
        others.wants("vm1", Presence.ABSENT)
        assert await others.findings(REPAIR) == [said], "the node has not said yet that it let go"
        others.bucket.clear()
        await others.findings(REPAIR)
        assert await others.findings() == []

    async def test_a_hold_that_should_have_ended_is_named_and_ended_with_a_word(self, world: World) -> None:
        others = Others(world)
        await world.pool("10.0.0.0/24")
        await world.reserve("10.0.0.5", "10.0.0.6", expires_in_seconds=3600)
        await world.reserve("10.0.0.7")
        assert await others.findings() == []
        world.clock.pass_by(3600)
        first, second = await others.findings()
        assert "10.0.0.5 is kept for bob by a hold that should have ended at 2030-01-01T01:00:00" in first
        assert "10.0.0.6" in second
        await others.findings(REPAIR)
        assert await others.findings() == []
        assert [str(it.address) for it in await world.records.records("msk", None, 10)] == ["10.0.0.7"]

    async def test_a_ready_vm_whose_address_ipam_would_give_to_another_is_named(self, world: World) -> None:
        others = Others(world)
        await placed(world, "vm1")
        others.knows("vm1", "10.0.0.7")
        first, second = await others.findings()
        assert "the VM is ready with 10.0.0.7" in first
        assert "vm1 is ready on n1 with 10.0.0.7, and ipam does not hold it" in second

    async def test_so_many_at_once_are_suspected_and_kept(self, world: World) -> None:
        others = Others(world)
        await placed(world, *(f"vm{number}" for number in range(11)))
        with pytest.raises(Refused, match="11 of 11 addresses would be released"):
            await others.findings(REPAIR)
        assert len(await others.findings()) == 11


class TestInMemory(Promises):
    @pytest.fixture
    def world(self, in_memory: World) -> World:
        return in_memory


class TestInPostgres(Promises):
    @pytest.fixture
    def world(self, in_postgres: World) -> World:
        return in_postgres
