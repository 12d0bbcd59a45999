"""What is said of a VM becomes changes and answers."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.envelope import Trace
from vmfabric.contract.errors import Refused
from vmfabric.contract.ip import IpAllocated, IpRefused, IpReleased
from vmfabric.contract.model import Event
from vmfabric.contract.names import NodeName
from vmfabric.contract.vm import AddressWish
from vmfabric.ipam.domain.changes import Changes, Holding
from vmfabric.ipam.domain.history import Entry, What
from vmfabric.ipam.domain.lease import Act, Given, Lease, Refusal, Said, State, VmKey, act_on, unheard_of
from vmfabric.ipam.domain.refusals import ExhaustedError
from vmfabric.ipam.domain.stock import Stock


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that is said of a VM."""

    said: Said
    key: VmKey
    node: NodeName
    generation: int
    trace: Trace
    wishes: tuple[AddressWish, ...] | None = None
    """What a placed VM should have; None means one address of each family."""


class Clerk:
    """Works off what is said, one notice after the other, at one moment, into one set of changes.

    The stock is changed at once. Whoever cannot write the changes has to build the stock anew.
    """

    def __init__(self, stock: Stock, now: datetime) -> None:
        self._stock = stock
        self._now = now
        self.changes = Changes()

    def hear(self, notice: Notice, known: Lease | None) -> None:  # noqa: C901  # a case for each act
        """Do what follows for the VM whose lease is `known`. One set of changes has at most one notice of a VM."""
        lease = known or unheard_of(notice.key, notice.node, self._now)
        act = act_on(lease, notice.said, notice.generation, notice.node)
        match act:
            case Act.IGNORE:
                return
            case Act.ALLOCATE:
                self._allocate(notice, lease)
            case Act.ANSWER_ALLOCATED:
                self._say_allocated(notice, lease.addresses)
            case Act.MOVE_ON:
                self._move(notice, lease, State.HELD)
                self._say_allocated(notice, lease.addresses)
            case Act.MOVE_BACK:
                self._move(notice, lease, State.RELEASING)
            case Act.WAIT_FOR_NODE:
                self.changes.leases.append(replace(lease, state=State.RELEASING, since=self._now))
            case Act.NOTE_LET_GO:
                self.changes.leases.append(replace(lease, state=State.LET_GO, since=self._now))
            case Act.RELEASE:
                self._release(notice, lease)
            case Act.FENCE:
                self._put(notice, lease, State.RELEASED, ())
                self._say_released(notice, ())
            case Act.ANSWER_RELEASED:
                self._say_released(notice, lease.addresses)
            case Act.ANSWER_REFUSED:
                self._refuse_again(notice, lease)
            case _:
                assert_never(act)

    def end_rest(self, holding: Holding) -> None:
        """The quarantine of an address is over: it may be given again once this is written."""
        self.changes.freed.append(holding.address)
        self._remember(What.FREED, holding)

    def _allocate(self, notice: Notice, lease: Lease) -> None:
        resting: set[HostAddress | None] = set()
        try:
            wishes = self._stock.wished(notice.wishes)
            resting = {wish.address for wish in wishes or () if self._rests(wish)}
            addresses = self._stock.take(notice.key, notice.node, wishes)
        except Refused as refusal:
            # The scheduler gives the VM up when it hears of it: the same placement said once more must take nothing.
            why = Refusal(refusal.code, refusal.sentence)
            self._put(notice, lease, State.RELEASED, (), why)
            for full in refusal.full if isinstance(refusal, ExhaustedError) else ():
                self._say(notice, full)
            self._say_refused(notice, why)
            return
        self._put(notice, lease, State.HELD, addresses)
        holdings = self._holdings(notice, addresses)
        self.changes.new_holdings += [each for each in holdings if each.address not in resting]
        self.changes.holdings += [each for each in holdings if each.address in resting]
        for holding in holdings:
            self._remember(What.ALLOCATED, holding)
        self._say_allocated(notice, addresses)

    def _refuse_again(self, notice: Notice, lease: Lease) -> None:
        if lease.refusal is not None:
            self._say_refused(notice, lease.refusal)

    def _rests(self, wish: AddressWish) -> bool:
        return wish.address is not None and self._stock.quarantine.until(wish.address) is not None

    def _move(self, notice: Notice, lease: Lease, to: State) -> None:
        self._put(notice, lease, to, lease.addresses)
        self.changes.holdings += self._holdings(notice, lease.addresses)

    def _release(self, notice: Notice, lease: Lease) -> None:
        self._put(notice, lease, State.RELEASED, lease.addresses)
        for holding in self._holdings(notice, lease.addresses):
            until = self._stock.rest(holding.key, Given(holding.address, holding.pool), self._now)
            self.changes.holdings.append(replace(holding, rests_until=until))
            self._remember(What.RELEASED, holding)
        self._say_released(notice, lease.addresses)

    def _put(
        self,
        notice: Notice,
        lease: Lease,
        state: State,
        addresses: tuple[Given, ...],
        refusal: Refusal | None = None,
    ) -> None:
        changed = Lease(notice.key, notice.node, notice.generation, state, self._now, addresses, refusal)
        (self.changes.leases if lease.generation else self.changes.new_leases).append(changed)

    def _holdings(self, notice: Notice, addresses: tuple[Given, ...]) -> list[Holding]:
        return [
            Holding(
                each.address,
                each.pool,
                notice.key,
                notice.node,
                notice.generation,
                position,
                self._now,
                prefix=self._stock.prefix_of(each),
            )
            for position, each in enumerate(addresses)
        ]

    def _remember(self, what: What, holding: Holding) -> None:
        self.changes.history.append(
            Entry(
                *(holding.address, self._now, what, *holding.key, holding.node, holding.generation),
                prefix=holding.prefix,
            )
        )

    def _say_allocated(self, notice: Notice, addresses: tuple[Given, ...]) -> None:
        self._say(
            notice,
            IpAllocated(
                cluster=notice.key.cluster,
                vm=notice.key.vm,
                node=notice.node,
                generation=notice.generation,
                addresses=tuple(self._stock.told(each) for each in addresses),
            ),
        )

    def _say_released(self, notice: Notice, addresses: tuple[Given, ...]) -> None:
        self._say(
            notice,
            IpReleased(
                cluster=notice.key.cluster,
                vm=notice.key.vm,
                node=notice.node,
                generation=notice.generation,
                addresses=tuple(each.address for each in addresses),
            ),
        )

    def _say_refused(self, notice: Notice, refusal: Refusal) -> None:
        self._say(
            notice,
            IpRefused(
                cluster=notice.key.cluster,
                vm=notice.key.vm,
                generation=notice.generation,
                code=refusal.code,
                message=refusal.sentence,
            ),
        )

    def _say(self, notice: Notice, event: Event) -> None:
        self.changes.events.append((event, notice.trace))
