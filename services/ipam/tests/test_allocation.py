"""The allocator against a model that does the same with a plain set."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from vmfabric.ipam.domain.allocation import Allocator, Range

SIZE = 48


def ranges_of(numbers: set[int]) -> list[Range]:
    """The numbers as ascending ranges."""
    ranges: list[Range] = []
    for number in sorted(numbers):
        if ranges and ranges[-1].last == number - 1:
            ranges[-1] = Range(ranges[-1].first, number)
        else:
            ranges.append(Range(number, number))
    return ranges


class AllocatorAgainstSet(RuleBasedStateMachine):
    given = Bundle("given")

    @initialize(usable=st.sets(st.integers(0, SIZE)), taken=st.sets(st.integers(0, SIZE)))
    def start(self, usable: set[int], taken: set[int]) -> None:
        self.usable = usable
        self.taken = taken & usable
        self.allocator = Allocator(ranges_of(usable), taken)

    @property
    def free(self) -> set[int]:
        return self.usable - self.taken

    @rule(target=given)
    def take_lowest(self) -> int:
        number = self.allocator.take_lowest()
        assert number == min(self.free, default=None)
        if number is None:
            return multiple()  # type: ignore[return-value]
        self.taken.add(number)
        return number

    @rule(target=given, number=st.integers(-2, SIZE + 2))
    def take(self, number: int) -> int:
        assert self.allocator.take(number) == (number in self.free)
        self.taken |= {number} & self.usable
        return number

    @rule(number=given)
    def give_back(self, number: int) -> None:
        if number in self.taken:
            self.allocator.give_back(number)
            self.taken.remove(number)
        else:
            with pytest.raises(ValueError, match="not taken"):
                self.allocator.give_back(number)

    @rule()
    def restart(self) -> None:
        self.allocator = Allocator(ranges_of(self.usable), self.taken)

    @invariant()
    def counts_and_frees_are_those_of_the_set(self) -> None:
        if not hasattr(self, "allocator"):
            return
        assert (self.allocator.total, self.allocator.used) == (len(self.usable), len(self.taken))
        assert {number for number in range(-2, SIZE + 3) if self.allocator.is_free(number)} == self.free


TestAllocatorAgainstSet = AllocatorAgainstSet.TestCase
TestAllocatorAgainstSet.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.integers(0, 128), st.integers(1, 300))
def test_a_range_of_any_size_gives_its_lowest_addresses_first(bits: int, count: int) -> None:
    allocator = Allocator([Range(0, 2**bits - 1)])
    got = [allocator.take_lowest() for _ in range(count)]
    assert got == [number if number < 2**bits else None for number in range(count)]
    assert allocator.total == 2**bits


def test_an_address_chosen_at_the_far_end_of_a_64_costs_nothing_near_its_start() -> None:
    allocator = Allocator([Range(0, 2**64 - 1)])
    assert allocator.take(2**64 - 1)
    assert [allocator.take_lowest() for _ in range(3)] == [0, 1, 2]


def test_an_address_that_is_chosen_and_given_back_for_ever_takes_no_memory() -> None:
    allocator = Allocator([Range(0, 9)])
    assert allocator.take_lowest() == 0
    allocator.give_back(0)
    for _ in range(10_000):
        assert allocator.take(0)
        allocator.give_back(0)
    assert len(allocator._hole_heap) < 200
    assert allocator.take_lowest() == 0
