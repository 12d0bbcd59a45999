"""A store without a database, for simulations and tests: the same promises, kept in memory."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from vmfabric.contract.addresses import Family, HostAddress
from vmfabric.contract.addressing import Reservation
from vmfabric.contract.admin import AddressRecord, HistoryEntry
from vmfabric.contract.envelope import Outgoing
from vmfabric.contract.names import ClusterName, ResourceName
from vmfabric.contract.pool import NetworkKind, NetworkSpec, PoolSpec
from vmfabric.ipam.domain.changes import Changes, Holding
from vmfabric.ipam.domain.history import BEGINS, ENDS, Entry, Standing, What
from vmfabric.ipam.domain.keeping import InUse
from vmfabric.ipam.domain.lease import Given, Lease, State, VmKey
from vmfabric.ipam.domain.units import delegated
from vmfabric.ipam.domain.usage import Flow, NetAllocated
from vmfabric.ipam.ports import Content


class TwiceError(Exception):
    """A lease, an address or a block would be there twice: what a unique or exclusion constraint would say."""


@dataclass
class InMemoryStore:
    """Outlives the writer, as Postgres does. A call that raises has written nothing of what it was given.

    A simulated crash throws the writer away and makes a new one on the same store; it publishes from `outbox`, oldest
    first, and takes out what the bus has kept.
    """

    outbox: list[Outgoing] = field(default_factory=list)
    networks: dict[ResourceName, NetworkSpec] = field(default_factory=dict)
    pools: dict[ResourceName, PoolSpec] = field(default_factory=dict)
    written_leases: dict[VmKey, Lease] = field(default_factory=dict)
    written_holdings: dict[HostAddress, Holding] = field(default_factory=dict)
    written_reservations: dict[HostAddress, Reservation] = field(default_factory=dict)
    written_history: list[Entry] = field(default_factory=list)

    async def load(self) -> Content:
        """Everything that the stock is built from."""
        return Content(
            networks=list(self.networks.values()),
            pools=list(self.pools.values()),
            in_use=[_in_use(holding) for holding in self.written_holdings.values()],
            reservations=list(self.written_reservations.values()),
        )

    async def leases(self, keys: Collection[VmKey]) -> Mapping[VmKey, Lease]:
        """The leases of those VMs that have one."""
        return {
            key: replace(self.written_leases[key], addresses=self._addresses(self.written_leases[key]))
            for key in keys
            if key in self.written_leases
        }

    async def holdings(self, addresses: Collection[HostAddress]) -> Sequence[Holding]:
        """Who holds or held these addresses."""
        return [self.written_holdings[address] for address in addresses if address in self.written_holdings]

    async def in_use(self, pool: ResourceName) -> Sequence[InUse]:
        """Every address of the pool that is held or rests."""
        return [_in_use(holding) for holding in self.written_holdings.values() if holding.pool == pool]

    async def commit(self, changes: Changes, messages: Sequence[Outgoing]) -> None:
        """Write all of it. TwiceError when a new lease or holding is there already."""
        _check_new([lease.key for lease in changes.new_leases], self.written_leases)
        _check_new([holding.address for holding in changes.new_holdings], self.written_holdings)
        for holding in changes.new_holdings:
            if holding.prefix != delegated(holding.address, self.pools[holding.pool].ipv6_length):
                raise TwiceError(f"{holding.prefix} of pool {holding.pool}")
        self.written_leases |= {lease.key: lease for lease in (*changes.new_leases, *changes.leases)}
        self.written_holdings |= {each.address: each for each in (*changes.new_holdings, *changes.holdings)}
        for address in changes.freed:
            self.written_holdings.pop(address, None)
        self.written_reservations |= {each.address: each for each in changes.reserved}
        for address in changes.unreserved:
            self.written_reservations.pop(address, None)
        self.written_history += changes.history
        self.outbox += messages

    async def put_network(self, spec: NetworkSpec, messages: Sequence[Outgoing]) -> None:
        """Write a network. TwiceError when it is active and overlaps another active one."""
        for other in self.networks.values():
            are_active = spec.kind is other.kind is NetworkKind.ACTIVE
            if other.name != spec.name and are_active and other.prefix.overlaps(spec.prefix):
                raise TwiceError(f"{spec.prefix} and {other.prefix}")
        self.networks[spec.name] = spec
        self.outbox += messages

    async def put_pool(self, spec: PoolSpec, messages: Sequence[Outgoing]) -> None:
        """Write a pool. TwiceError when a block overlaps that of another pool."""
        taken = [block for other in self.pools.values() if other.name != spec.name for block in other.blocks]
        for block in spec.blocks:
            if any(block.overlaps(other) for other in taken):
                raise TwiceError(f"{block} of pool {spec.name}")
        self.pools[spec.name] = spec
        self.outbox += messages

    async def delete_network(self, name: ResourceName) -> None:
        """Remove a network."""
        del self.networks[name]

    async def delete_pool(self, name: ResourceName, messages: Sequence[Outgoing]) -> None:
        """Remove a pool, of which no address is there."""
        del self.pools[name]
        self.outbox += messages

    async def forget(self, *, fences_before: datetime, history_before: datetime) -> None:
        """Remove released leases that are older, and history but for the beginning of what goes on."""
        self.written_leases = {
            key: lease
            for key, lease in self.written_leases.items()
            if lease.state is not State.RELEASED or lease.since >= fences_before
        }
        kept: list[Entry] = []
        is_over: set[tuple[HostAddress, bool]] = set()
        for entry in reversed(self.written_history):
            turn = (entry.address, entry.owner is None)
            if entry.at >= history_before or (entry.what in BEGINS and turn not in is_over):
                kept.append(entry)
            elif entry.what in ENDS:
                is_over.add(turn)
        self.written_history = kept[::-1]

    async def records(
        self, cluster: ClusterName | None, after: HostAddress | None, limit: int
    ) -> Sequence[AddressRecord]:
        """Addresses that are held, rest or are reserved, ascending, IPv4 first."""
        addresses = sorted({*self.written_holdings, *self.written_reservations}, key=_order)
        found = [self._record(address) for address in addresses if after is None or _order(address) > _order(after)]
        return [record for record in found if cluster in {None, record.cluster}][:limit]

    async def record(self, address: HostAddress) -> AddressRecord | None:
        """Who holds this address, or held it while it rests, and for whom it is reserved."""
        is_known = address in self.written_holdings or address in self.written_reservations
        return self._record(address) if is_known else None

    async def history(self, address: HostAddress, limit: int) -> Sequence[HistoryEntry]:
        """What happened to this address, newest first."""
        return [_told(entry) for entry in reversed(self.written_history) if _is_of(entry, address)][:limit]

    async def tenures_around(self, address: HostAddress, at: datetime, limit: int) -> Sequence[HistoryEntry]:
        """Where VMs and reservations began and ended to have this address, oldest first."""
        entries = [
            (number, entry)
            for number, entry in enumerate(self.written_history)
            if _is_of(entry, address) and entry.what in BEGINS | ENDS
        ]
        found: list[tuple[int, Entry]] = []
        for of_vms in (True, False):
            own = [(number, entry) for number, entry in entries if (entry.owner is None) is of_vms]
            found += [each for each in own if each[1].at <= at][-limit:]
            found += [each for each in own if each[1].at > at][:limit]
        return [_told(entry) for _, entry in sorted(found, key=lambda each: each[0])]

    async def net_allocated(self, since: datetime) -> NetAllocated:
        """What VMs took since then of what each pool has now, of pools that anything was ever heard of."""
        found: dict[tuple[ResourceName, Family], Flow] = {}
        for entry in self.written_history:
            for pool in self.pools.values():
                if any(entry.address in block for block in pool.blocks):
                    flow = found.setdefault((pool.name, Family.of(entry.address)), Flow(0, max(since, entry.at)))
                    counts = (entry.what is What.ALLOCATED) - (entry.what is What.RELEASED)
                    net = flow.net + (counts if entry.at > since else 0)
                    found[pool.name, Family.of(entry.address)] = replace(flow, net=net)
        return found

    def _addresses(self, lease: Lease) -> tuple[Given, ...]:
        own = [
            holding
            for holding in self.written_holdings.values()
            if (holding.key, holding.generation) == (lease.key, lease.generation)
        ]
        own.sort(key=lambda holding: holding.position)
        return tuple(Given(holding.address, holding.pool) for holding in own)

    def _record(self, address: HostAddress) -> AddressRecord:
        holding, reservation = self.written_holdings.get(address), self.written_reservations.get(address)
        if holding is None:
            only = self.written_reservations[address]
            return AddressRecord(
                address=address,
                pool=only.pool,
                cluster=only.cluster,
                state=Standing.RESERVED,
                since=only.since,
                free_at=only.expires_at,
                reservation=only,
            )
        lease = self.written_leases.get(holding.key)
        standing = Standing.ALLOCATED
        if holding.rests_until is not None:
            standing = Standing.QUARANTINED
        elif lease is not None and lease.state is State.RELEASING:
            standing = Standing.RELEASING
        return AddressRecord(
            address=address,
            prefix=holding.prefix,
            pool=holding.pool,
            cluster=holding.key.cluster,
            vm=holding.key.vm,
            node=holding.node,
            generation=holding.generation,
            state=standing,
            since=holding.since,
            free_at=holding.rests_until,
            reservation=reservation,
        )


def _told(entry: Entry) -> HistoryEntry:
    return HistoryEntry(
        at=entry.at,
        what=entry.what,
        cluster=entry.cluster,
        vm=entry.vm,
        node=entry.node,
        generation=entry.generation,
        owner=entry.owner,
        note=entry.note,
        prefix=entry.prefix,
    )


def _is_of(entry: Entry, address: HostAddress) -> bool:
    return entry.address == address or (entry.prefix is not None and address in entry.prefix)


def _in_use(holding: Holding) -> InUse:
    return InUse(holding.address, holding.pool, holding.key.vm, holding.node, holding.rests_until)


def _order(address: HostAddress) -> tuple[int, int]:
    return (address.version, int(address))


def _check_new(keys: Sequence[object], there: Collection[object]) -> None:
    if len(set(keys)) < len(keys) or any(key in there for key in keys):
        raise TwiceError(f"one of {keys}")
