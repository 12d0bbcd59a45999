"""One process of vmfabric, from its settings to SIGTERM."""

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog
import uvloop
from prometheus_client import start_http_server

from vmfabric.runtime import logging
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.cancellation import keep_cancellations
from vmfabric.runtime.clock import Clock, SystemClock
from vmfabric.runtime.settings import ServiceSettings

_AGAIN_SECONDS = 0.5

log = structlog.get_logger()


class Interrupted(Exception):  # nothing is wrong with the service
    """What a service stands on has gone for a while, so its work has ended; composed again, it goes on."""


@dataclass(frozen=True, slots=True)
class Service:
    """What a service is composed from."""

    name: str
    bus: Bus
    clock: Clock
    tasks: asyncio.TaskGroup
    """Tasks that live as long as the service. One that is `Interrupted` has it composed again; any other failure ends
    the process, and whoever started it starts it again."""
    stack: AsyncExitStack
    """What is closed when the tasks have ended."""


Compose = Callable[[Service], Awaitable[None]]


def run(name: str, settings: ServiceSettings, compose: Compose) -> None:
    """Run until SIGTERM or SIGINT, then finish the work in hand and leave."""
    keep_cancellations()
    logging.configure(name, settings)
    if settings.metrics_port is not None:
        start_http_server(settings.metrics_port, addr="127.0.0.1")
    uvloop.run(_serve(name, settings, compose))


async def _serve(name: str, settings: ServiceSettings, compose: Compose) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await work_until(stopping, lambda: _work(name, settings, compose))
    log.info("service.stopped")


async def work_until(stopping: asyncio.Event, work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Work, again and again while it is interrupted, until it is told to stop; then let it finish what is in hand."""
    stop = asyncio.create_task(stopping.wait())
    while True:
        # A task of its own each time: one in which a TaskGroup has failed stays half cancelled in Python 3.11.
        working = asyncio.create_task(work())
        await asyncio.wait({working, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            log.info("service.stopping")
            working.cancel()
            await asyncio.wait({working})
        if working.cancelled():
            return
        errors = _leaves(working.exception())
        reasons = [error for error in errors if isinstance(error, Interrupted)]
        if not reasons:
            stop.cancel()
            await working
            return
        also = [repr(error) for error in errors if not isinstance(error, Interrupted)]
        log.warning("service.interrupted", reason="; ".join(str(reason) for reason in reasons), also=also)
        await asyncio.wait({stop}, timeout=_AGAIN_SECONDS)
        if stop.done():
            return


def _leaves(error: BaseException | None) -> Sequence[BaseException]:
    """The errors that the work ended with; none when it ended by itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [] if error is None else [error]


async def _work(name: str, settings: ServiceSettings, compose: Compose) -> None:
    clock = SystemClock()
    async with (
        Bus(settings.nats_url, name=name, replicas=settings.nats_replicas, clock=clock) as bus,
        AsyncExitStack() as stack,
        asyncio.TaskGroup() as tasks,
    ):
        await compose(Service(name, bus, clock, tasks, stack))
        collect_garbage_seldom()
        log.info("service.started")


def collect_garbage_seldom() -> None:
    """What lives as long as the process is not looked at again, and the young are looked at in larger numbers: with
    the defaults a busy service spends a third of its time on looking for cycles, which hardly anything here makes.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
