"""Released addresses rest before they are given again, so that nothing still sends to their last owner."""

import heapq
from datetime import datetime
from itertools import count

from vmfabric.contract.addresses import HostAddress


class Quarantine:
    """The addresses that rest, by the moment when each is free again."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, int, HostAddress]] = []
        self._until: dict[HostAddress, datetime] = {}
        self._order = count()  # addresses of two families do not compare

    def rest(self, address: HostAddress, until: datetime) -> None:
        """Nobody gets the address before `until`."""
        self._until[address] = until
        heapq.heappush(self._heap, (until, next(self._order), address))

    def until(self, address: HostAddress) -> datetime | None:
        """When the address is free again; None when it does not rest."""
        return self._until.get(address)

    def due(self, now: datetime, limit: int) -> list[HostAddress]:
        """Up to `limit` addresses whose rest is over; they stay here until `end` is called for them."""
        found: list[HostAddress] = []
        while self._heap and self._heap[0][0] <= now and len(found) < limit:
            until, _, address = heapq.heappop(self._heap)
            if self._until.get(address) == until:
                found.append(address)
        return found

    def is_due(self, now: datetime) -> bool:
        """Whether the rest of any address is over."""
        return bool(self._heap) and self._heap[0][0] <= now

    def end(self, address: HostAddress) -> None:
        """The address rests no more."""
        del self._until[address]
