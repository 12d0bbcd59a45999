"""Who owned an address when: the facts of a stream, in its order, must be a history of one owner at a time.

In the manner of Jepsen: nothing is asked of the services, their words are taken as the history, and the words of one
service are held against those of the others. ipam's facts are committed and published in one order, so an address
that goes from one VM to another without `ip.released` between had two owners.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from vmfabric.contract.addresses import HostAddress, named_by
from vmfabric.contract.ip import AllocatedAddress, IpAllocated, IpReleased
from vmfabric.contract.model import Event
from vmfabric.contract.names import ClusterName, ResourceName, VmName
from vmfabric.contract.route import RouteAnnounced
from vmfabric.contract.vm import VmMigrated, VmReady

_CLOCKS = timedelta(seconds=0.5)
"""Between the making of an event and the commit that the quarantine is counted from."""


@dataclass(frozen=True, slots=True)
class _Owner:
    cluster: ClusterName
    vm: VmName
    generation: int
    since: datetime

    def __str__(self) -> str:
        return f"{self.cluster}/{self.vm}"


@dataclass(frozen=True, slots=True)
class _Rest:
    since: datetime | None
    """None when the release was heard without the ownership that it ended: an answer that is said again, perhaps."""
    owner: _Owner


def said_at(headers: Mapping[str, str], kept_at: datetime) -> datetime:
    """When an event was made: one that was committed may reach the bus long after."""
    return datetime.fromisoformat(headers["ce-time"]) if "ce-time" in headers else kept_at


class Ownership:
    """Takes the facts one after the other; what cannot be is a sentence."""

    def __init__(self, quarantine: Callable[[ResourceName], timedelta]) -> None:
        """`quarantine`: how long an address of a pool rests."""
        self._quarantine = quarantine
        self._owners: dict[HostAddress, _Owner] = {}
        self._rests: dict[HostAddress, _Rest] = {}
        self._began = datetime.min.replace(tzinfo=UTC)
        self.facts = 0
        """Those that said something of an address."""

    def forget(self, at: datetime) -> None:
        """The stream has lost facts: what is said from now on is a history of its own."""
        self._owners.clear()
        self._rests.clear()
        self._began = at

    def hear(self, event: Event, at: datetime) -> Iterator[str]:
        """The next fact of the stream, and when it was said."""
        if at < self._began:
            # What took it back may be among what was lost.
            return
        match event:
            case IpAllocated():
                owner = _Owner(event.cluster, event.vm, event.generation, at)
                for allocated in event.addresses:
                    yield from self._allocated(owner, allocated, at)
            case IpReleased():
                owner = _Owner(event.cluster, event.vm, event.generation, at)
                for address in event.addresses:
                    self._released(owner, address, at)
            case VmReady() | VmMigrated():
                yield from self._used(event, [it.address for it in event.addresses], at)
            case RouteAnnounced():
                yield from self._used(event, [named_by(route.prefix) for route in event.routes], at)
            case _:
                return

    def _allocated(self, owner: _Owner, allocated: AllocatedAddress, at: datetime) -> Iterator[str]:
        self.facts += 1
        address, before = allocated.address, self._owners.get(allocated.address)
        rest = self._rests.pop(address, None)
        if before is not None and (before.cluster, before.vm) != (owner.cluster, owner.vm):
            yield f"{address} is {before}'s, and is given to {owner} without having been released"
        if before is not None and before.vm == owner.vm and owner.generation < before.generation:
            return
        if rest is not None and rest.owner.vm == owner.vm and owner.generation <= rest.owner.generation:
            # The answer to an old question, published again.
            self._rests[address] = rest
            return
        least = self._quarantine(allocated.pool) - _CLOCKS
        if rest is not None and rest.since is not None and at - rest.since < least:
            rested, wanted = (at - rest.since).total_seconds(), self._quarantine(allocated.pool).total_seconds()
            yield (
                f"{address} of {rest.owner} is given to {owner} {rested:.3f} s after it was released; "
                f"its pool's quarantine is {wanted:.0f} s"
            )
        self._owners[address] = owner

    def _released(self, owner: _Owner, address: HostAddress, at: datetime) -> None:
        self.facts += 1
        before = self._owners.get(address)
        if before is not None and (before.vm != owner.vm or before.generation > owner.generation):
            return
        if before is not None:
            del self._owners[address]
            self._rests[address] = _Rest(at, owner)
        else:
            # What was published before may arrive after.
            rest = self._rests.setdefault(address, _Rest(None, owner))
            is_same = (rest.owner.vm, rest.owner.generation) == (owner.vm, owner.generation)
            if is_same and rest.since is not None and at < rest.since:
                self._rests[address] = _Rest(at, owner)

    def _used(
        self, event: VmReady | VmMigrated | RouteAnnounced, addresses: list[HostAddress], at: datetime
    ) -> Iterator[str]:
        for address in addresses:
            self.facts += 1
            owner = self._owners.get(address)
            # What was said before the owner got it is an old word that the bus has kept late.
            if owner is None or at < owner.since:
                continue
            if (owner.cluster, owner.vm) != (event.cluster, event.vm):
                who = f"{event.cluster}/{event.vm}"
                yield f"{address} is {owner}'s, and {event.subject_template.stem} of {who} has it"
