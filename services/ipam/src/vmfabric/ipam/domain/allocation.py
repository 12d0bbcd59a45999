"""Which address comes next: the lowest free one, found without a search."""

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

_STALE_ENTRIES = 64
"""So many entries of the heap may be of holes that somebody chose, before it is made anew."""


class Range(NamedTuple):
    """Numbers of addresses from `first` to `last`, both included."""

    first: int
    last: int


class Allocator:
    """The addresses of one family in one pool, as numbers.

    Everything below the mark is taken or a hole; everything from the mark on is free, but for the few that are taken
    ahead of it because somebody chose them. So taking and giving back cost O(log holes), whatever the size of the
    ranges and however many of their addresses are taken, and a /64 costs no more memory than a /28.
    """

    def __init__(self, ranges: Sequence[Range], taken: Iterable[int] = ()) -> None:
        """`ranges` are what may be given, ascending and disjoint; what is `taken` outside of them is ignored."""
        self._ranges = tuple(ranges)
        self._firsts = [each.first for each in self._ranges]
        self._total = sum(each.last - each.first + 1 for each in self._ranges)
        self._ahead = {number for number in taken if self.contains(number)}
        self._holes: set[int] = set()
        self._hole_heap: list[int] = []
        self._index = 0
        self._mark = self._firsts[0] if self._firsts else 0
        self._used = len(self._ahead)

    @property
    def total(self) -> int:
        """How many addresses there are to give."""
        return self._total

    @property
    def used(self) -> int:
        """How many of them are taken."""
        return self._used

    @property
    def free(self) -> int:
        """How many of them may be given now."""
        return self._total - self._used

    def free_ranges(self) -> Iterator[Range]:
        """Everything that may be given now, ascending; addresses side by side may come in several ranges.

        It costs a sort of the holes and of what is taken ahead of the mark.
        """
        yield from (Range(number, number) for number in sorted(self._holes))
        ahead = deque(sorted(self._ahead))
        for first, last in self._ranges[self._index :]:
            start = max(first, self._mark)
            while ahead and ahead[0] <= last:
                number = ahead.popleft()
                if start < number:
                    yield Range(start, number - 1)
                start = number + 1
            if start <= last:
                yield Range(start, last)

    def contains(self, number: int) -> bool:
        """Whether the address may be given at all."""
        index = bisect_right(self._firsts, number) - 1
        return index >= 0 and number <= self._ranges[index].last

    def is_free(self, number: int) -> bool:
        """Whether the address may be given now."""
        if not self.contains(number):
            return False
        if number in self._holes:
            return True
        return not self._is_below_mark(number) and number not in self._ahead

    def take_lowest(self) -> int | None:
        """Take the lowest free address; None when there is none."""
        while self._hole_heap:
            number = heapq.heappop(self._hole_heap)
            if number in self._holes:
                self._holes.remove(number)
                self._used += 1
                return number
        return self._take_at_mark()

    def take(self, number: int) -> bool:
        """Take this address; False when it is not free."""
        if not self.is_free(number):
            return False
        if number in self._holes:
            # Its entry in the heap stays, and is passed over when it comes up.
            self._holes.remove(number)
        else:
            self._ahead.add(number)
        self._used += 1
        return True

    def give_back(self, number: int) -> None:
        """The address is free again. ValueError when it was not taken: two owners would follow."""
        if not self.contains(number) or self.is_free(number):
            raise ValueError(f"address number {number} is given back, but it was not taken")
        if self._is_below_mark(number):
            self._add_hole(number)
        else:
            self._ahead.remove(number)
        self._used -= 1

    def _add_hole(self, number: int) -> None:
        self._holes.add(number)
        heapq.heappush(self._hole_heap, number)
        if len(self._hole_heap) > 2 * len(self._holes) + _STALE_ENTRIES:
            self._hole_heap = sorted(self._holes)

    def _is_below_mark(self, number: int) -> bool:
        return self._index == len(self._ranges) or number < self._mark

    def _take_at_mark(self) -> int | None:
        while self._index < len(self._ranges):
            number = self._mark
            self._advance()
            if number not in self._ahead:
                self._used += 1
                return number
            self._ahead.remove(number)
        return None

    def _advance(self) -> None:
        if self._mark < self._ranges[self._index].last:
            self._mark += 1
            return
        self._index += 1
        if self._index < len(self._ranges):
            self._mark = self._firsts[self._index]
