"""One process of vmfabric, from its settings to SIGTERM."""

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog
import uvloop
from prometheus_client import start_http_server

from vmfabric.runtime import logging
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.clock import Clock, SystemClock
from vmfabric.runtime.settings import ServiceSettings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Service:
    """What a service is composed from."""

    name: str
    bus: Bus
    clock: Clock
    tasks: asyncio.TaskGroup
    """Tasks that live as long as the service; one that fails ends it, and whoever started it starts it again."""
    stack: AsyncExitStack
    """What is closed when the tasks have ended."""


Compose = Callable[[Service], Awaitable[None]]


def run(name: str, settings: ServiceSettings, compose: Compose) -> None:
    """Run until SIGTERM or SIGINT, then finish the work in hand and leave."""
    logging.configure(name, settings)
    if settings.metrics_port is not None:
        start_http_server(settings.metrics_port, addr="127.0.0.1")
    uvloop.run(_serve(name, settings, compose))


async def _serve(name: str, settings: ServiceSettings, compose: Compose) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    work = asyncio.create_task(_work(name, settings, compose))
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        stop.cancel()
        await work
        return
    log.info("service.stopping")
    work.cancel()
    await asyncio.wait({work})
    if not work.cancelled():
        await work
    log.info("service.stopped")


async def _work(name: str, settings: ServiceSettings, compose: Compose) -> None:
    clock = SystemClock()
    async with (
        Bus(settings.nats_url, name=name, clock=clock) as bus,
        AsyncExitStack() as stack,
        asyncio.TaskGroup() as tasks,
    ):
        await compose(Service(name, bus, clock, tasks, stack))
        _collect_garbage_seldom()
        log.info("service.started")


def _collect_garbage_seldom() -> None:
    """What lives as long as the process is not looked at again, and the young are looked at in larger numbers: with
    the defaults a busy service spends a third of its time on looking for cycles, which hardly anything here makes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
