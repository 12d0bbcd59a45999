"""The scheduler, put together."""

from functools import partial
from pathlib import Path

import structlog
from nats.aio.msg import Msg

from vmfabric.contract.admin import DeleteNode, GetVm
from vmfabric.contract.desired import HANDED_OUT_KEY, NODE_KEY, VM_KEY
from vmfabric.contract.explanation import AuditNode
from vmfabric.contract.node import NodeHeartbeat
from vmfabric.contract.retry import RetryNode
from vmfabric.contract.streams import FACT_STREAM, REQUEST_STREAM
from vmfabric.database.outbox import Relay
from vmfabric.database.pool import TRANSIENT
from vmfabric.database.repeated import Repeated
from vmfabric.database.writer import writer
from vmfabric.runtime import micro
from vmfabric.runtime.bucket import last_message, last_value, read_bucket, watch_bucket
from vmfabric.runtime.consumer import Consumer
from vmfabric.runtime.inbound import UnreadableError, parse
from vmfabric.runtime.micro import Endpoint
from vmfabric.runtime.service import Service, run
from vmfabric.scheduler.admin import Administration
from vmfabric.scheduler.deleting import Deleting
from vmfabric.scheduler.desk import Desk
from vmfabric.scheduler.domain.deadlines import Patience
from vmfabric.scheduler.draining import Draining
from vmfabric.scheduler.explaining import Explaining
from vmfabric.scheduler.handlers import SOURCE, Handlers
from vmfabric.scheduler.nodes import Nodes
from vmfabric.scheduler.republish import EVERY_SECONDS, Republish
from vmfabric.scheduler.retrying import Retrying
from vmfabric.scheduler.settings import SchedulerSettings
from vmfabric.scheduler.standing import check_standing
from vmfabric.scheduler.store import PostgresStore
from vmfabric.scheduler.strays import Strays
from vmfabric.scheduler.supplies import Supplies
from vmfabric.scheduler.sweep import Sweep

log = structlog.get_logger()

MIGRATIONS = Path(__file__).with_name("migrations")
_ASK_SECONDS = 2.0
_SUPPLY_SECONDS = 0.5
"""So long a request waits for ipam, which may be away, before its VM is placed."""
"""For the answer of one of several services, so that whoever asks us has ours within 5 s."""
_WRITTEN = (NODE_KEY.pattern(), VM_KEY.pattern(), HANDED_OUT_KEY.pattern())
"""The keys that the scheduler writes."""
DESCRIPTION = "clusters, nodes, VM records and their life cycle, placement"


def main() -> None:
    """Run until SIGTERM."""
    settings = SchedulerSettings()
    run(SOURCE, settings, lambda service: compose(service, settings))


async def compose(service: Service, settings: SchedulerSettings) -> None:
    """Everything that the scheduler is made of; a second one waits at the lock."""
    pool = await service.stack.enter_async_context(
        writer(settings.database_url, schema=SOURCE, migrations=MIGRATIONS, connections=settings.connections)
    )
    relay = Relay(pool, service.bus)
    store = PostgresStore(pool)
    supplies = Supplies(partial(micro.ask, service.bus, seconds=_SUPPLY_SECONDS), service.clock)
    desk = Desk(store, committed=relay.wake, supplies=supplies)
    patience = Patience(
        phase=settings.phase_seconds, move=settings.migration_seconds, first=settings.ask_again_seconds
    )
    nodes = Nodes(
        store,
        service.clock,
        committed=relay.wake,
        is_listening=lambda: service.bus.is_connected,
        lost_after=settings.node_lost_seconds,
    )
    handlers = Handlers(desk, service.clock, patience, problem_of=nodes.problem_of)
    republish = Republish(store, lambda: read_bucket(service.bus, _WRITTEN), committed=relay.wake)
    republishing = Repeated("republish", republish.once, every=EVERY_SECONDS)
    service.bus.on_reconnect(republishing.wake)

    requests = Consumer(
        service.bus,
        stream=REQUEST_STREAM,
        durable=SOURCE,
        routes=handlers.requests(),
        on_invalid=handlers.invalid,
        transient=TRANSIENT,
    )
    draining = Draining(store, service.clock, handlers, committed=relay.wake)
    facts = Consumer(
        service.bus,
        stream=FACT_STREAM,
        durable=SOURCE,
        routes=(*handlers.facts(), *draining.facts()),
        transient=TRANSIENT,
    )
    # Closed when the tasks have ended: what the consumers have in hand is finished and acknowledged.
    await service.stack.enter_async_context(desk.open())
    strays = Strays(store, desk, lambda node: read_bucket(service.bus, [VM_KEY.pattern(node._asdict())]))
    ask = partial(micro.ask, service.bus, seconds=_ASK_SECONDS)
    deleting = Deleting(store, handlers, strays, committed=relay.wake)
    retrying = Retrying(store, ask=ask)
    explaining = Explaining(
        store,
        strays,
        ask=ask,
        last_fact=partial(last_message, service.bus, FACT_STREAM.name),
        desired=partial(last_value, service.bus),
    )
    endpoints = (
        *Administration(store, service.clock, committed=relay.wake).endpoints(),
        Endpoint("node.audit", AuditNode, explaining.audit, "what of a node is not as it should be"),
        Endpoint("node.delete", DeleteNode, deleting.delete_node, "forget a node that does not come back"),
        Endpoint("node.retry", RetryNode, retrying.retry, "what a node has given up is tried at once"),
        Endpoint("vm.explain", GetVm, explaining.explain, "one VM from what is wanted to what the reflectors hold"),
    )
    await service.bus.connected()
    await check_standing(
        store,
        lambda: read_bucket(service.bus, [VM_KEY.pattern(), HANDED_OUT_KEY.pattern()]),
        accepted=settings.accepted_generation,
    )
    service.tasks.create_task(relay.run())
    await _hear(service, nodes)
    for task in (
        requests.run(),
        facts.run(),
        Sweep(store, service.clock, handlers, nodes, draining).run(),
        republishing.run(),
        watch_bucket(service.bus, republishing.wake),
        micro.serve(service.bus, name=SOURCE, description=DESCRIPTION, endpoints=endpoints),
    ):
        service.tasks.create_task(task)


async def _hear(service: Service, nodes: Nodes) -> None:
    async def heard(message: Msg) -> None:
        try:
            nodes.heard(parse(NodeHeartbeat, message.subject, message.data))
        except UnreadableError as error:
            log.warning("heartbeat.unreadable", subject=message.subject, reason=str(error))

    await service.bus.client.subscribe(NodeHeartbeat.subject_template.pattern(), cb=heard)
