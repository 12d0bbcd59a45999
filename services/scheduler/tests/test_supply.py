"""A new VM goes where there are addresses for it, by what ipam said a moment ago."""

import asyncio
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from vmfabric.contract.addresses import Family
from vmfabric.contract.addressing import FreeInPool
from vmfabric.contract.cluster import NetworkType
from vmfabric.contract.envelope import Trace
from vmfabric.contract.errors import Code
from vmfabric.contract.ip import IpRefused
from vmfabric.contract.vm import AddressWish
from vmfabric.runtime.message import Message
from vmfabric.scheduler.domain.changes import NodeKey
from vmfabric.scheduler.domain.record import VmKey
from vmfabric.scheduler.domain.supply import Need, Needs, Source, Supply
from vmfabric.scheduler.supplies import Supplies

from .builders import START, HandClock, a_vm_request
from .seat import Ipam, Scheduler

A = TypeVar("A", bound=BaseModel)
FOUR, SIX = Family.IPV4, Family.IPV6
N1 = NodeKey("msk", "n1")


def a_pool(nodes: Mapping[str, Mapping[Family, int]] | None, name: str = "web") -> FreeInPool:
    each = None if nodes is None else {node: dict(free) for node, free in nodes.items()}
    return FreeInPool(pool=name, free={FOUR: 100}, nodes=each)


def a_wish(family: Family = FOUR, **fields: str) -> AddressWish:
    address = ip_address(fields.pop("address")) if "address" in fields else None
    return AddressWish(family=family, address=address, **fields)


def reason(supply: Supply, *wishes: AddressWish) -> str | None:
    return supply.shortage(Needs.of(a_vm_request(addresses=wishes or None)))


def test_a_node_without_a_free_address_of_a_wanted_family_says_so() -> None:
    supply = Supply({Source("web", FOUR): 1, Source("web", SIX): 0})
    assert reason(supply, a_wish()) is None
    assert reason(supply) == "no free ipv6 address for its VMs now"
    assert reason(supply, a_wish(), a_wish()) == "no free ipv4 address for its VMs now"
    assert reason(supply, a_wish(SIX, pool="web")) == "no free ipv6 address of pool web for its VMs now"
    assert reason(supply, a_wish(pool="other")) == "no free ipv4 address of pool other for its VMs now"


def test_where_the_provider_asks_for_each_address_no_vm_gets_a_prefix() -> None:
    free = {FOUR: 1, SIX: 5}
    pools = [
        FreeInPool(pool="wide", free=free, nodes={"n1": free}, ipv6_length=64),
        FreeInPool(pool="web", free=free, nodes={"n1": {SIX: 1}}),
    ]
    supply = Supply.on("n1", pools)

    def why(*wishes: AddressWish) -> str | None:
        needs = Needs.of(a_vm_request(addresses=wishes or None))
        assert supply.shortage(needs) is None
        return supply.shortage(needs, is_asked_for_each=True)

    words = "pool wide gives whole prefixes, and the provider asks for each address by itself"
    assert why(a_wish(SIX, pool="wide")) == words
    assert why(a_wish(SIX)) == why() == words, "ipam asks this pool first"
    assert why(a_wish(FOUR, pool="wide"), a_wish(SIX, pool="web")) is None


def test_a_vm_that_names_no_family_needs_those_that_its_node_has() -> None:
    assert reason(Supply({Source("web", FOUR): 1})) is None
    assert reason(Supply({Source("web", SIX): 1})) is None
    assert reason(Supply({})) == "no pool has a range for it"


def test_a_chosen_address_need_not_be_free() -> None:
    """It may be kept for this VM; ipam knows."""
    chosen = AddressWish(family=FOUR, address=ip_address("203.0.113.9"))
    assert reason(Supply({Source("web", FOUR): 0}), chosen) is None


def test_a_choosy_wish_is_served_before_one_that_takes_any_pool() -> None:
    supply = Supply({Source("a", FOUR): 1, Source("b", FOUR): 1})
    assert reason(supply, a_wish(), a_wish(pool="a")) is None
    assert reason(supply, a_wish(), a_wish(), a_wish(pool="a")) is not None


def test_of_a_pool_without_ranges_every_node_has_everything() -> None:
    supply = Supply.on("n3", [a_pool({"n1": {FOUR: 3}}), a_pool(None, "shared")])
    assert supply.free == {Source("shared", FOUR): 100}


@given(st.dictionaries(st.sampled_from("abc"), st.integers(0, 4)), st.lists(st.sampled_from(["a", "b", "c", None])))
def test_so_many_vms_are_placed_as_there_are_addresses(free: dict[str, int], pools: list[str | None]) -> None:
    supply = Supply({Source(pool, FOUR): count for pool, count in free.items()})
    given_out = 0
    for pool in pools:
        needs = Needs((Need(FOUR, pool),))
        given_out += supply.shortage(needs) is None
        supply = supply.without(needs)
    assert given_out == sum(free.values()) - sum(supply.free.values())
    assert all(count >= 0 for count in supply.free.values())


async def test_ipam_is_asked_once_a_second_however_many_ask() -> None:
    ipam, clock = Ipam(a_pool({"n1": {FOUR: 2}})), HandClock()
    supplies = Supplies(ipam, clock)
    await asyncio.gather(*(supplies.look("msk") for _ in range(50)))
    assert ipam.asked == 1
    clock.pass_(1.1)
    await supplies.look("msk")
    assert ipam.asked == 2


async def test_where_every_node_has_the_same_ipam_is_hardly_asked_and_no_node_refused() -> None:
    ipam, clock = Ipam(a_pool(None)), HandClock()
    supplies = Supplies(ipam, clock)
    for _ in range(9):
        await supplies.look("msk")
        clock.pass_(1)
    assert (ipam.asked, supplies.of(N1)) == (1, None)


async def test_what_was_placed_since_is_taken_off_until_ipam_has_counted_it() -> None:
    ipam, clock = Ipam(a_pool({"n1": {FOUR: 2}})), HandClock()
    supplies = Supplies(ipam, clock)
    await supplies.look("msk")
    for vm in ("vm1", "vm2", "vm2"):
        supplies.claim(VmKey("msk", vm), N1, Needs())
    left = supplies.of(N1)
    assert left is not None
    assert left.free == {Source("web", FOUR): 0}
    clock.pass_(1.1)
    ipam.pools = (a_pool({"n1": {FOUR: 1}}),)
    await supplies.look("msk")
    again = supplies.of(N1)
    assert again is not None
    assert again.free == {Source("web", FOUR): 1}


TWO = a_pool({"n1": {FOUR: 1}, "n2": {FOUR: 1}})


async def refused(scheduler: Scheduler, vm: str = "vm1") -> None:
    record = await scheduler.record(vm)
    assert record is not None
    said = IpRefused(
        cluster="msk", vm=vm, generation=record.generation, code=Code.POOL_EXHAUSTED, message="the range is full"
    )
    await scheduler.handlers.happened(Message(said, Trace.new(), START))


async def test_vms_that_come_at_once_go_where_there_are_addresses_and_the_rest_hears_why(
    scheduler: Scheduler,
) -> None:
    await scheduler.is_of_type(NetworkType.ROUTING)
    scheduler.ipam.pools = (TWO,)
    await asyncio.gather(*(scheduler.handlers.requested(scheduler.request(f"vm{n}", cpu=1)) for n in range(3)))
    homes = [home for n in range(3) if (home := await scheduler.home(f"vm{n}")) is not None]
    assert sorted(homes) == ["n1", "n2"]
    assert scheduler.ipam.asked == 1
    assert (await scheduler.sent())[-1].startswith("vm.failed.msk.")
    decision = await scheduler.decision("vm1")
    assert decision is not None
    assert [other.refused for other in decision.others] == ["no free ipv4 address for its VMs now"]


async def test_a_vm_is_placed_when_ipam_is_away(scheduler: Scheduler) -> None:
    scheduler.ipam.pools, scheduler.ipam.is_away = (TWO,), True
    for number in range(3):
        await scheduler.handlers.requested(scheduler.request(f"vm{number}"))
        assert await scheduler.home(f"vm{number}") is not None


async def test_a_node_that_became_full_meanwhile_is_left_for_another_once(scheduler: Scheduler) -> None:
    scheduler.ipam.pools = (TWO,)
    await scheduler.handlers.requested(scheduler.request())
    first = await scheduler.record()
    assert first is not None
    await refused(scheduler)
    second = await scheduler.record()
    assert second is not None
    assert (first.node, second.node, second.generation > first.generation) == ("n1", "n2", True)
    assert await scheduler.used() == [0, second.request.cpu]
    await refused(scheduler)
    await scheduler.hears("ip.released")
    assert (await scheduler.sent())[-1] == "vm.failed.msk.vm1"
    assert await scheduler.used() == [0, 0]


async def test_a_vm_that_asked_for_its_node_hears_what_ipam_says(scheduler: Scheduler) -> None:
    scheduler.ipam.pools = (TWO,)
    await scheduler.handlers.requested(scheduler.request(node="n1"))
    await refused(scheduler)
    assert await scheduler.home("vm1") == "n1"
    await scheduler.hears("ip.released")
    assert (await scheduler.sent())[-1] == "vm.failed.msk.vm1"


async def test_a_migration_takes_its_addresses_along(scheduler: Scheduler) -> None:
    await scheduler.is_made()
    scheduler.clock.pass_(2)
    scheduler.ipam.pools = (a_pool({"n1": {FOUR: 0}, "n2": {FOUR: 0}}),)
    await scheduler.handlers.migrate_requested(scheduler.migration())
    assert (await scheduler.sent())[-2].startswith("vm.migrating.msk.vm1")


async def test_a_vm_that_chooses_an_address_goes_to_the_node_that_the_provider_sends_it_to(
    scheduler: Scheduler,
) -> None:
    await scheduler.is_of_type(NetworkType.ROUTING)
    await scheduler.has_node("n1", 1, uplink="eth0", subnets=(ip_network("198.51.100.0/28"),))
    await scheduler.has_node("n2", 2, cpu=4, uplink="eth0", subnets=(ip_network("198.51.100.16/28"),))
    await scheduler.handlers.requested(scheduler.request("vm1", addresses=(a_wish(address="198.51.100.17"),)))
    assert await scheduler.home("vm1") == "n2", "n1 has more room"
    decision = await scheduler.decision("vm1")
    assert decision is not None
    (other,) = decision.others
    assert other.refused == "the provider does not send 198.51.100.17 to it"
