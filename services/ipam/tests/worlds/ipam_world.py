"""A writer on a store, and what it says; over memory and over Postgres."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import asyncpg
from ipam_specs import a_container, a_network, a_pool

from vmfabric.contract.addresses import Family
from vmfabric.contract.addressing import ReleaseAddresses, ReserveAddresses
from vmfabric.contract.admin import ApplyNetwork, ApplyPool, Change
from vmfabric.contract.envelope import Outgoing, Trace
from vmfabric.contract.ip import IpAllocated, IpExhausted, IpRefused, IpReleased
from vmfabric.contract.model import Event
from vmfabric.contract.vm import AddressWish
from vmfabric.database.outbox import Relay
from vmfabric.ipam.admin import Administration
from vmfabric.ipam.applying import Applying
from vmfabric.ipam.domain.lease import Said, VmKey
from vmfabric.ipam.domain.leasing import Notice
from vmfabric.ipam.importing import Importing
from vmfabric.ipam.memory_store import InMemoryStore
from vmfabric.ipam.ports import Records, Store
from vmfabric.ipam.records import PostgresRecords
from vmfabric.ipam.reporting import Reporting
from vmfabric.ipam.reserving import Reserving
from vmfabric.ipam.store import PostgresStore
from vmfabric.ipam.writer import Writer

QUARANTINE = 300


class Clock:
    def __init__(self) -> None:
        self.at = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def pass_by(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class World:
    """A store with the writer that works on it, and what the outbox holds."""

    def __init__(self, store: Store, records: Records) -> None:
        self.store = store
        self.records = records
        self.clock = Clock()

    async def outbox(self) -> Sequence[Outgoing]:
        raise NotImplementedError

    async def spoil(self) -> None:
        """Somebody else writes an address that the writer believes to be free: the next one of 10.0.0.0/24."""
        raise NotImplementedError

    def restart(self) -> None:
        self.writer = Writer(self.store, self.clock)
        self.applying = Applying(self.writer, self.store)
        self.reserving = Reserving(self.writer, self.store, self.clock)
        self.reporting = Reporting(self.writer, self.records, self.clock)
        self.importing = Importing(self.writer, self.store, self.clock)
        self.admin = Administration(
            self.writer,
            self.records,
            applying=self.applying,
            reserving=self.reserving,
            importing=self.importing,
            reporting=self.reporting,
        )

    async def said(self) -> list[Event]:
        """What was said since somebody last asked, without desired state."""
        kinds = {kind.subject_template.stem: kind for kind in (IpAllocated, IpRefused, IpReleased, IpExhausted)}
        found = [(kinds.get(".".join(each.subject.split(".")[:2])), each.body) for each in await self.outbox()]
        return [kind.model_validate_json(body) for kind, body in found if kind is not None]

    async def hear(
        self, said: Said, vm: str, generation: int = 1, *wishes: AddressWish, node: str = "n1"
    ) -> list[Event]:
        await self.writer.hear(Notice(said, VmKey("msk", vm), node, generation, Trace.new(), wishes or None))
        return await self.said()

    async def place(self, vm: str, generation: int = 1, *wishes: AddressWish, node: str = "n1") -> list[str]:
        """The addresses that the VM gets, or the code of the refusal."""
        answers = await self.hear(Said.PLACED, vm, generation, *wishes, node=node)
        given = [str(each.address) for event in answers if isinstance(event, IpAllocated) for each in event.addresses]
        return given + [event.code for event in answers if isinstance(event, IpRefused)]

    async def release(self, vm: str, generation: int = 1, *, node: str = "n1") -> list[str]:
        await self.hear(Said.DELETING, vm, generation, node=node)
        (released,) = await self.hear(Said.REMOVED, vm, generation, node=node)
        assert isinstance(released, IpReleased)
        return [str(address) for address in released.addresses]

    async def pool(
        self,
        *blocks: str,
        name: str = "web",
        exclude: tuple[str, ...] = (),
        cluster: str = "msk",
        ranges: Mapping[str, str] | None = None,
        ipv6_length: int = 128,
    ) -> Change:
        spec = a_pool(
            *blocks,
            name=name,
            exclude=exclude,
            cluster=cluster,
            ranges=ranges,
            quarantine=QUARANTINE,
            ipv6_length=ipv6_length,
        )
        return (await self.applying.apply_pool(ApplyPool(spec=spec))).change

    async def reserve(
        self, *addresses: str, owner: str = "bob", for_vm: str | None = None, **wanted: Any
    ) -> list[str]:
        """The addresses that are reserved; without some, as many of a pool as are wanted."""
        found = tuple(ip_address(address) for address in addresses) or None
        asked = ReserveAddresses(addresses=found, owner=owner, for_vm=for_vm, **wanted)
        return [str(each.address) for each in (await self.reserving.reserve(asked)).reservations]

    async def end_reservation(self, *addresses: str, dry_run: bool = False) -> None:
        found = tuple(ip_address(address) for address in addresses)
        await self.reserving.release(ReleaseAddresses(addresses=found, dry_run=dry_run))

    async def network(
        self,
        prefix: str,
        name: str = "four",
        *,
        gateway: str | None = None,
        vlan: int | None = None,
        segment: bool = False,
    ) -> Change:
        spec = a_network(prefix, name, gateway=gateway, vlan=vlan, segment=segment)
        return (await self.applying.apply_network(ApplyNetwork(spec=spec))).change

    async def container(self, prefix: str, name: str) -> Change:
        return (await self.applying.apply_network(ApplyNetwork(spec=a_container(prefix, name)))).change


class InMemoryWorld(World):
    def __init__(self) -> None:
        self.memory = InMemoryStore()
        super().__init__(self.memory, self.memory)

    async def outbox(self) -> Sequence[Outgoing]:
        taken, self.memory.outbox = self.memory.outbox, []
        return taken

    async def spoil(self) -> None:
        stranger = Writer(self.memory, self.clock)
        async with running(stranger):
            await stranger.hear(Notice(Said.PLACED, VmKey("msk", "stranger"), "n1", 1, Trace.new()))
        await self.outbox()


class NoBus:
    async def send(self, messages: Sequence[Outgoing]) -> None:
        raise AssertionError(f"nothing runs that would publish {messages}")


class PostgresWorld(World):
    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool_of_connections = pool
        super().__init__(PostgresStore(pool, Relay(pool, NoBus())), PostgresRecords(pool))

    async def outbox(self) -> Sequence[Outgoing]:
        rows = await self.pool_of_connections.fetch(
            "WITH taken AS (DELETE FROM outbox RETURNING *) SELECT subject, body, headers FROM taken ORDER BY id"
        )
        return [Outgoing(row["subject"], row["body"], row["headers"]) for row in rows]

    async def spoil(self) -> None:
        stranger = Writer(
            PostgresStore(self.pool_of_connections, Relay(self.pool_of_connections, NoBus())), self.clock
        )
        async with running(stranger):
            await stranger.hear(Notice(Said.PLACED, VmKey("msk", "stranger"), "n1", 1, Trace.new()))
        await self.outbox()


@asynccontextmanager
async def running(writer: Writer) -> AsyncIterator[None]:
    task = asyncio.create_task(writer.run())
    yield
    task.cancel()
    await asyncio.wait({task})


def wish(family: str = "ipv4", pool: str | None = None, address: str | None = None) -> AddressWish:
    return AddressWish(family=Family(family), pool=pool, address=ip_address(address) if address else None)
