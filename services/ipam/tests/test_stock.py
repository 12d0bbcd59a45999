"""The stock against a model that keeps a plain record of every address."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ipam_specs import a_pool

from vmfabric.contract.addresses import Family, HostAddress
from vmfabric.contract.addressing import Reservation
from vmfabric.contract.errors import Refused
from vmfabric.contract.vm import AddressWish
from vmfabric.ipam.domain.keeping import InUse
from vmfabric.ipam.domain.lease import Given, VmKey
from vmfabric.ipam.domain.stock import Stock

AT = datetime(2030, 1, 1, tzinfo=UTC)
VMS = st.sampled_from(["vm1", "vm2"])
NODES = st.sampled_from(["n1", "n2"])
HOSTS = st.integers(0, 7)
POOLS = {
    "one for all": a_pool("10.0.0.0/29", exclude=("10.0.0.2/32",)),
    "one for each node": a_pool(
        "10.0.0.0/29", exclude=("10.0.0.2/32",), ranges={"n1": "10.0.0.1-10.0.0.4", "n2": "10.0.0.5,10.0.0.7"}
    ),
}
USABLE = {
    "one for all": {"n1": {0, 1, 3, 4, 5, 6, 7}, "n2": {0, 1, 3, 4, 5, 6, 7}},
    "one for each node": {"n1": {1, 3, 4}, "n2": {5, 7}},
}


def address(host: int) -> HostAddress:
    return ip_address(f"10.0.0.{host}")


@dataclass
class Model:
    """Who has each address; the number is the last octet."""

    held: dict[int, str] = field(default_factory=dict)
    resting: dict[int, str] = field(default_factory=dict)
    """Whose it was."""
    reserved: dict[int, str | None] = field(default_factory=dict)
    """For which VM, if for one."""

    def may_have(self, vm: str, host: int) -> bool:
        """By asking for exactly this address."""
        returns = self.resting.get(host) == vm == self.reserved.get(host)
        free = host not in self.held and (host not in self.resting or returns)
        return free and self.reserved.get(host, vm) == vm

    def free(self) -> set[int]:
        return {*range(8)} - self.held.keys() - self.resting.keys() - self.reserved.keys()


class StockAgainstModel(RuleBasedStateMachine):
    @initialize(kind=st.sampled_from(sorted(POOLS)))
    def start(self, kind: str) -> None:
        self.pool, self.usable = POOLS[kind], USABLE[kind]
        self.model = Model()
        self.stock = Stock([], [self.pool], [])

    @property
    def every(self) -> set[int]:
        return set().union(*self.usable.values())

    @rule(vm=VMS, node=NODES, data=st.data())
    def a_vm_asks_for_what_is_reserved(self, vm: str, node: str, data: st.DataObject) -> None:
        if self.model.reserved:
            self.a_vm_is_placed(vm, node, [data.draw(st.sampled_from(sorted(self.model.reserved)))], 0)

    @rule(vm=VMS, node=NODES, chosen=st.lists(HOSTS, max_size=2), others=st.integers(0, 2))
    def a_vm_is_placed(self, vm: str, node: str, chosen: list[int], others: int) -> None:
        wishes = [AddressWish(family=Family.IPV4)] * others
        wishes += [AddressWish(family=Family.IPV4, address=address(host)) for host in chosen]
        lowest = sorted(self.model.free() & self.usable[node] - {*chosen})[:others]
        fits = len({*chosen}) == len(chosen) and len(lowest) == others
        fits = fits and all(self.model.may_have(vm, host) and host in self.usable[node] for host in chosen)
        if not fits:
            with pytest.raises(Refused):
                self.stock.take(VmKey("msk", vm), node, wishes)
            return
        given = self.stock.take(VmKey("msk", vm), node, wishes)
        assert [each.address for each in given] == [address(host) for host in (*lowest, *chosen)]
        self.model.held |= dict.fromkeys([*lowest, *chosen], vm)
        for host in chosen:
            self.model.resting.pop(host, None)

    @rule(data=st.data())
    def an_address_is_released(self, data: st.DataObject) -> None:
        if self.model.held:
            host = data.draw(st.sampled_from(sorted(self.model.held)))
            vm = self.model.held.pop(host)
            self.stock.rest(VmKey("msk", vm), Given(address(host), "web"), AT)
            self.model.resting[host] = vm

    @rule(data=st.data())
    def a_rest_ends(self, data: st.DataObject) -> None:
        if self.model.resting:
            host = data.draw(st.sampled_from(sorted(self.model.resting)))
            self.stock.free(Given(address(host), "web"))
            del self.model.resting[host]

    @rule(host=HOSTS, vm=st.none() | VMS)
    def an_address_is_reserved(self, host: int, vm: str | None) -> None:
        if host in self.every and self.model.held.get(host, vm) == vm:
            self.stock.reserve(self.reservation(host, vm))
            self.model.reserved[host] = vm

    @rule(data=st.data())
    def a_reservation_ends(self, data: st.DataObject) -> None:
        if self.model.reserved:
            host = data.draw(st.sampled_from(sorted(self.model.reserved)))
            self.stock.end_reservation(self.reservation(host, self.model.reserved.pop(host)))

    @rule()
    def ipam_starts_anew(self) -> None:
        in_use = [InUse(address(host), "web", vm, "n1", None) for host, vm in self.model.held.items()]
        in_use += [InUse(address(host), "web", vm, "n1", AT) for host, vm in self.model.resting.items()]
        kept = [self.reservation(host, vm) for host, vm in self.model.reserved.items()]
        self.stock = Stock([], [self.pool], in_use, kept)

    @invariant()
    def every_count_is_that_of_the_model(self) -> None:
        if not hasattr(self, "stock"):
            return
        (pool,) = self.stock
        only_reserved = self.model.reserved.keys() - self.model.held.keys() - self.model.resting.keys()
        assert pool.free(Family.IPV4) == len(self.model.free() & self.every)
        assert pool.resting(Family.IPV4) == len(self.model.resting)
        assert pool.reserved(Family.IPV4) == len(only_reserved)
        found = [
            number
            for _, share in pool.of_family(Family.IPV4)
            for each in share.allocator.free_ranges()
            for number in range(each.first, each.last + 1)
        ]
        assert sorted(found) == sorted(int(address(host)) for host in self.model.free() & self.every)

    @staticmethod
    def reservation(host: int, vm: str | None) -> Reservation:
        return Reservation(address=address(host), pool="web", cluster="msk", owner="bob", since=AT, for_vm=vm)


TestStockAgainstModel = StockAgainstModel.TestCase
TestStockAgainstModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
