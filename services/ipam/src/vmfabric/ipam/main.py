"""ipam, put together."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from prometheus_client import REGISTRY

from vmfabric.contract.admin import Vms
from vmfabric.contract.desired import POOLS_KEY, VM_KEY
from vmfabric.contract.explanation import AuditAddresses
from vmfabric.contract.streams import FACT_STREAM
from vmfabric.database.outbox import Relay
from vmfabric.database.pool import TRANSIENT
from vmfabric.database.repeated import Repeated
from vmfabric.database.writer import writer as schema_writer
from vmfabric.ipam.admin import Administration
from vmfabric.ipam.applying import Applying
from vmfabric.ipam.auditing import Auditing
from vmfabric.ipam.handlers import Handlers
from vmfabric.ipam.importing import Importing
from vmfabric.ipam.metrics import StockCollector
from vmfabric.ipam.records import PostgresRecords
from vmfabric.ipam.reporting import Reporting
from vmfabric.ipam.republish import EVERY_SECONDS, Republish
from vmfabric.ipam.reserving import Reserving
from vmfabric.ipam.settings import IpamSettings
from vmfabric.ipam.store import PostgresStore
from vmfabric.ipam.sweep import Sweep
from vmfabric.ipam.writer import SOURCE, Writer
from vmfabric.runtime import micro
from vmfabric.runtime.bucket import read_bucket, watch_bucket
from vmfabric.runtime.consumer import Consumer
from vmfabric.runtime.micro import Endpoint
from vmfabric.runtime.service import Service, collect_garbage_seldom, run

MIGRATIONS = Path(__file__).with_name("migrations")
DESCRIPTION = "networks, pools, and who holds which address"


def main() -> None:
    """Run until SIGTERM."""
    settings = IpamSettings()
    run(SOURCE, settings, lambda service: compose(service, settings))


async def compose(service: Service, settings: IpamSettings) -> None:
    """Everything that ipam is made of; a second one waits at the lock."""
    pool = await service.stack.enter_async_context(
        schema_writer(settings.database_url, schema=SOURCE, migrations=MIGRATIONS)
    )
    relay = Relay(pool, service.bus)
    store = PostgresStore(pool, relay)
    writer = Writer(store, service.clock)
    keep = {"fences": timedelta(days=settings.fence_days), "history": timedelta(days=settings.history_days)}
    sweep = Sweep(writer, store, service.clock, **keep)
    republish = Republish(writer, store, lambda: read_bucket(service.bus, [POOLS_KEY.pattern()]))
    republishing = Repeated("republish", republish.once, every=EVERY_SECONDS)
    service.bus.on_reconnect(republishing.wake)
    records = PostgresRecords(pool)
    auditing = Auditing(
        writer,
        records,
        service.clock,
        list_vms=lambda asked: micro.ask(service.bus, "vm.list", asked, Vms),
        read_bucket=lambda cluster: read_bucket(service.bus, [VM_KEY.pattern({"cluster": cluster})]),
    )
    administration = Administration(
        writer,
        records,
        applying=Applying(writer, store),
        reserving=Reserving(writer, store, service.clock),
        importing=Importing(writer, store, service.clock),
        reporting=Reporting(writer, records, service.clock),
    )
    endpoints = (
        *administration.endpoints(),
        Endpoint(
            "ip.audit", AuditAddresses, auditing.audit, "on which addresses ipam and the scheduler do not agree"
        ),
    )
    stock = StockCollector(lambda: writer.stock)
    REGISTRY.register(stock)
    service.stack.callback(REGISTRY.unregister, stock)
    events = Consumer(
        service.bus, stream=FACT_STREAM, durable=SOURCE, routes=Handlers(writer).routes(), transient=TRANSIENT
    )
    service.tasks.create_task(_consume(events, writer))
    for task in (
        relay.run(),
        sweep.run(),
        republishing.run(),
        watch_bucket(service.bus, republishing.wake),
        micro.serve(service.bus, name=SOURCE, description=DESCRIPTION, endpoints=endpoints),
    ):
        service.tasks.create_task(task)


async def _consume(events: Consumer, writer: Writer) -> None:
    """What there is to give is read before it is asked for.

    When the service stops, the writer goes on until the work in hand is committed.
    """
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(writer.run())
        with suppress(*TRANSIENT):  # the first event tries again
            await writer.current()
        # A pass over sets of a million addresses takes a third of a second, and finds nothing.
        collect_garbage_seldom()
        await events.run()
        writing.cancel()
