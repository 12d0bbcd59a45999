"""What ends by itself: holds, and the quarantine of an address, in which nothing may still send to its last owner."""

import heapq
from datetime import datetime
from itertools import count

from vmfabric.contract.addresses import HostAddress


class Deadlines:
    """Addresses by the moment when something of them ends."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, int, HostAddress]] = []
        self._until: dict[HostAddress, datetime] = {}
        self._order = count()  # addresses of two families do not compare

    def set(self, address: HostAddress, until: datetime) -> None:
        """It ends at `until`, and at no other moment that was set before."""
        self._until[address] = until
        heapq.heappush(self._heap, (until, next(self._order), address))

    def until(self, address: HostAddress) -> datetime | None:
        """When it ends; None when it has no end."""
        return self._until.get(address)

    def due(self, now: datetime, limit: int) -> list[HostAddress]:
        """Up to `limit` addresses whose moment has come; they stay here until `drop` is called for them."""
        found: dict[HostAddress, None] = {}  # a moment may have been set twice
        while self._heap and self._heap[0][0] <= now and len(found) < limit:
            until, _, address = heapq.heappop(self._heap)
            if self._until.get(address) == until:
                found[address] = None
        return list(found)

    def is_due(self, now: datetime) -> bool:
        """Whether the moment of any address may have come."""
        return bool(self._heap) and self._heap[0][0] <= now

    def drop(self, address: HostAddress) -> None:
        """It has ended, or has no end any more."""
        self._until.pop(address, None)
