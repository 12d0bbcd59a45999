"""The bgp-announcer, put together."""

import asyncio

import structlog

from vmfabric.bgp_announcer.announcer import Announcer
from vmfabric.bgp_announcer.explaining import Explaining
from vmfabric.bgp_announcer.frr.adapter import VtyshFrr
from vmfabric.bgp_announcer.frr.vtysh import Vtysh
from vmfabric.bgp_announcer.settings import AnnouncerSettings
from vmfabric.contract.errors import VmfabricError
from vmfabric.contract.explanation import ROUTE_EXPLAIN, ROUTE_REFLECTED, ExplainOnNode, ShowReflected
from vmfabric.contract.names import VmName
from vmfabric.reconcile.loop import Loop
from vmfabric.runtime import micro
from vmfabric.runtime.micro import Endpoint
from vmfabric.runtime.mirror import Mirror
from vmfabric.runtime.service import Service, run
from vmfabric.runtime.snapshot import Confirmations

NAME = "bgp-announcer"
DESCRIPTION = "the routes of one node's VMs in its FRR"

log = structlog.get_logger()


def main() -> None:
    """Run until SIGTERM."""
    settings = AnnouncerSettings()
    run(NAME, settings, lambda service: compose(service, settings))


async def compose(service: Service, settings: AnnouncerSettings) -> None:
    """Everything that the announcer is made of."""
    directory = settings.state_dir / NAME

    def changed(vm: VmName | None) -> None:
        if vm is None:
            loop.mark_all()
        else:
            loop.mark(vm)

    mirror = Mirror(
        service.bus,
        cluster=settings.cluster,
        node=settings.node,
        snapshot=directory / "desired.json",
        on_change=changed,
        bucket_seconds=settings.bucket_seconds,
    )
    vtysh = Vtysh(settings.frr_pathspace)
    service.stack.push_async_callback(vtysh.close)
    frr = VtyshFrr(vtysh)
    explaining = Explaining(mirror, frr)
    announcer = Announcer(
        mirror,
        frr,
        publisher=service.bus,
        confirmations=Confirmations(directory / "confirmed.json"),
        sessions=directory / "sessions.json",
        clock=service.clock,
        audit_seconds=settings.audit_seconds,
    )
    loop = Loop(announcer.step, resync=settings.resync_seconds)

    service.tasks.create_task(mirror.run())
    service.tasks.create_task(loop.run())
    service.tasks.create_task(watch_sessions(announcer, loop, settings.session_seconds))
    where = {"cluster": settings.cluster, "node": settings.node}
    endpoints = (
        Endpoint(ROUTE_EXPLAIN.render(where), ExplainOnNode, explaining.explain, "what FRR has of a VM"),
        Endpoint(ROUTE_REFLECTED.render(where), ShowReflected, explaining.reflected, "what the reflectors tell it"),
    )
    service.tasks.create_task(micro.serve(service.bus, name=NAME, description=DESCRIPTION, endpoints=endpoints))


async def watch_sessions(announcer: Announcer, loop: Loop, seconds: float) -> None:
    """Look at the sessions until cancelled."""
    while True:
        try:
            if await announcer.look_at_sessions():
                loop.mark_all()
        except VmfabricError as error:
            log.warning("sessions.unknown", reason=error.sentence)
        await asyncio.sleep(seconds)
