"""A scheduler and its nodes whose events come late, twice and out of order, over a store that fails now and then."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.admin import ApplyNetwork, ApplyPool
from vmfabric.contract.envelope import Outgoing, Trace
from vmfabric.contract.ip import IpAllocated, IpReleased
from vmfabric.contract.pool import NetworkSpec, PoolSpec
from vmfabric.ipam.applying import Applying
from vmfabric.ipam.domain.changes import Changes
from vmfabric.ipam.domain.history import Entry, What
from vmfabric.ipam.domain.lease import Said, VmKey
from vmfabric.ipam.domain.leasing import Notice
from vmfabric.ipam.memory_store import InMemoryStore
from vmfabric.ipam.writer import Writer

VMS = ("vm1", "vm2", "vm3")
BLOCK = ip_network("10.0.0.0/29")
EXCLUDED = ip_network("10.0.0.0/31")
GIVEN_BY_POOL = frozenset(BLOCK) - frozenset(EXCLUDED)
QUARANTINE = 60
IN_TURN = {
    (What.FREED, What.ALLOCATED),
    (What.ALLOCATED, What.RELEASED),
    (What.RELEASED, What.FREED),
}


class Clock:
    def __init__(self) -> None:
        self.at = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()


class CommitFailedError(Exception):
    pass


class FailingStore(InMemoryStore):
    """Fails at the next commit: before it is written, or after, when the answer gets lost."""

    fails: str = ""

    async def commit(self, changes: Changes, messages: Sequence[Outgoing]) -> None:
        fails, self.fails = self.fails, ""
        if fails == "fails before":
            raise CommitFailedError
        await super().commit(changes, messages)
        if fails == "fails after":
            raise CommitFailedError


@dataclass
class Vm:
    """A VM as its scheduler and its node see it."""

    generation: int
    addresses: frozenset[HostAddress] = frozenset()
    wired: bool = False
    """The desired state was written, so the node may have wired it."""
    deleting: bool = False
    let_go: bool = False


class LeasesInDisorder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.store = FailingStore()
        self.generation = 0
        self.vms: dict[str, Vm] = {}
        self.underway: list[Notice] = []

    def teardown(self) -> None:
        try:
            self.everything_ends()
        finally:
            self.runner.close()

    @initialize()
    def start(self) -> None:
        self.writer = Writer(self.store, self.clock)
        applying = Applying(self.writer, self.store)
        network = NetworkSpec(name="net", prefix=BLOCK)
        pool = PoolSpec(
            name="web", cluster="msk", blocks=(BLOCK,), exclude=(EXCLUDED,), quarantine_seconds=QUARANTINE
        )
        self.do(lambda: applying.apply_network(ApplyNetwork(spec=network)))
        self.do(lambda: applying.apply_pool(ApplyPool(spec=pool)))
        self.store.outbox.clear()

    def do(self, *calls: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Call side by side and work off what came of it, again as often as the store fails."""

        async def together() -> Sequence[object]:
            tasks = [asyncio.create_task(call()) for call in calls]
            await asyncio.sleep(0)
            await self.writer.work_off()
            return await asyncio.gather(*tasks, return_exceptions=True)

        while failures := [each for each in self.runner.run(together()) if isinstance(each, Exception)]:
            assert all(isinstance(failure, CommitFailedError) for failure in failures)

    def listen(self, message: Outgoing) -> None:
        if message.subject.startswith("ip.allocated."):
            self.allocated(IpAllocated.model_validate_json(message.body))
        elif message.subject.startswith("ip.released."):
            self.released(IpReleased.model_validate_json(message.body))

    def allocated(self, event: IpAllocated) -> None:
        given = frozenset(each.address for each in event.addresses)
        assert given <= GIVEN_BY_POOL
        vm = self.vms.get(event.vm)
        if vm is not None and vm.generation == event.generation:
            assert vm.addresses in {frozenset(), given}, "another answer to the same question"
            vm.addresses = given
            vm.wired = vm.wired or not vm.deleting

    def released(self, event: IpReleased) -> None:
        vm = self.vms.get(event.vm)
        if vm is not None and vm.generation == event.generation:
            assert vm.deleting, "released though the scheduler has not given the VM up"
            assert vm.let_go or not vm.wired, "released though its node may still have it"
            del self.vms[event.vm]

    def send(self, said: Said, name: str, generation: int) -> None:
        self.underway.append(Notice(said, VmKey("msk", name), "n1", generation, Trace("0" * 32)))

    @rule(name=st.sampled_from(VMS), go_on=st.sampled_from([True, True, False]))
    def something_happens_to(self, name: str, go_on: bool) -> None:
        vm = self.vms.get(name)
        if vm is None:
            self.generation += 1
            self.vms[name] = Vm(self.generation)
            self.send(Said.PLACED, name, self.generation)
        elif not go_on:
            # The scheduler asks again.
            self.send(Said.PLACED, name, vm.generation)
        elif vm.deleting and vm.wired:
            vm.let_go = True
            self.send(Said.REMOVED, name, vm.generation)
        else:
            self.delete(name, vm)

    def delete(self, name: str, vm: Vm) -> None:
        vm.deleting = True
        self.send(Said.DELETING if vm.wired else Said.DELETING_UNWIRED, name, vm.generation)

    @precondition(lambda self: self.underway)
    @rule(data=st.data(), again=st.booleans())
    def deliver(self, data: st.DataObject, again: bool) -> None:
        chosen = data.draw(st.lists(st.sampled_from(range(len(self.underway))), min_size=1, max_size=3, unique=True))
        notices = [self.underway[index] for index in chosen]
        if not again:
            self.underway = [each for index, each in enumerate(self.underway) if index not in chosen]
        self.do(*[lambda notice=notice: self.writer.hear(notice) for notice in notices])

    @rule(what=st.sampled_from(["killed", "fails before", "fails after", "a moment passes", "a quarantine passes"]))
    def something_goes_on(self, what: str) -> None:
        match what:
            case "killed":
                self.writer = Writer(self.store, self.clock)
            case "fails before" | "fails after":
                self.store.fails = what
            case _:
                self.clock.at += timedelta(seconds=1 if what == "a moment passes" else QUARANTINE)
                self.do(self.writer.end_rests)

    @precondition(lambda self: self.store.outbox)
    @rule(data=st.data(), again=st.booleans())
    def the_scheduler_hears(self, data: st.DataObject, again: bool) -> None:
        index = data.draw(st.sampled_from(range(len(self.store.outbox))))
        self.listen(self.store.outbox[index])
        if not again:
            self.store.outbox.pop(index)

    @invariant()
    def what_a_vm_was_promised_is_held_for_it(self) -> None:
        for name, vm in self.vms.items():
            if not vm.deleting or (vm.wired and not vm.let_go):
                for address in vm.addresses:
                    holding = self.store.written_holdings[address]
                    assert (holding.key.vm, holding.rests_until) == (name, None)

    @invariant()
    def an_address_is_allocated_released_and_freed_in_turn_with_its_quarantine_between(self) -> None:
        last: dict[HostAddress, Entry] = {}
        for entry in self.store.written_history:
            before = last.get(entry.address)
            assert (before.what if before else What.FREED, entry.what) in IN_TURN
            if before is not None and entry.what is What.FREED:
                assert entry.at - before.at >= timedelta(seconds=QUARANTINE)
            last[entry.address] = entry

    def everything_ends(self) -> None:
        """Ask until all is gone: then every address is free again."""
        while self.vms:
            for name, vm in self.vms.items():
                self.delete(name, vm)
                vm.let_go = True
                self.send(Said.REMOVED, name, vm.generation)
            for notice in self.underway:
                self.do(lambda notice=notice: self.writer.hear(notice))  # type: ignore[misc]
            self.underway.clear()
            for message in self.store.outbox:
                self.listen(message)
            self.store.outbox.clear()
        self.clock.at += timedelta(seconds=QUARANTINE)
        self.do(self.writer.end_rests)
        assert not self.store.written_holdings


TestLeasesInDisorder = LeasesInDisorder.TestCase
TestLeasesInDisorder.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
