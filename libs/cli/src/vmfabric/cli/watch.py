"""`watch`: events as they come, or a table of the VMs."""

import asyncio
from datetime import datetime
from typing import Annotated

import typer
from nats.aio.client import Client
from nats.aio.msg import Msg
from rich.live import Live
from rich.table import Table

from vmfabric.cli.connection import connection
from vmfabric.cli.facts import KINDS, line
from vmfabric.cli.screen import console
from vmfabric.contract.admin import ListOfCluster, VmPhase, Vms, VmState
from vmfabric.contract.node import NodeHeartbeat
from vmfabric.runtime import micro

_REFRESH_SECONDS = 0.5
_COLOURS = {VmPhase.READY: "green", VmPhase.ALLOCATING: "cyan", VmPhase.WIRING: "cyan"}


def watch(
    table: Annotated[bool, typer.Option("--table", help="A live table of the VMs instead of events.")] = False,
    heartbeats: Annotated[bool, typer.Option("--heartbeats", help="Show the nodes' heartbeats too.")] = False,
) -> None:
    """Show events as they come."""
    try:
        asyncio.run(_watch_vms() if table else _watch_events(heartbeats=heartbeats))
    except KeyboardInterrupt:
        console.print()


def subjects(*, heartbeats: bool) -> list[str]:
    """Every subject that an event may travel on."""
    quiet = NodeHeartbeat.subject_template.stem
    return [subject for stem in KINDS if heartbeats or stem != quiet for subject in (stem, f"{stem}.>")]


async def _watch_events(*, heartbeats: bool) -> None:
    async with connection() as client:
        for subject in [*subjects(heartbeats=heartbeats), "dead.>"]:
            await client.subscribe(subject, cb=_print)
        console.print(f"[dim]listening at {client.connected_url.netloc if client.connected_url else '?'}[/]")
        await asyncio.Event().wait()


async def _print(message: Msg) -> None:
    at = datetime.now().astimezone().isoformat(timespec="milliseconds")[11:23]
    console.print(line(at, message.subject, message.data), soft_wrap=True)


async def _watch_vms() -> None:
    async with connection() as client:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(_table(await vms(client)), refresh=True)
                await asyncio.sleep(_REFRESH_SECONDS)


async def vms(client: Client) -> list[VmState]:
    """Every VM that the scheduler knows."""
    found: list[VmState] = []
    after = ""
    while True:
        answer = await micro.request(client, "vm.list", ListOfCluster(after=after).model_dump_json().encode())
        page = Vms.model_validate_json(answer)
        found += page.vms
        if page.next is None:
            return found
        after = page.next


def _table(found: list[VmState]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, title=f"{len(found)} VMs", title_justify="left")
    for column in ("VM", "node", "addresses", "phase", "since", "waits for"):
        table.add_column(column)
    for vm in found:
        colour = _COLOURS.get(vm.phase, "yellow")
        table.add_row(
            f"[bold]{vm.cluster}/{vm.vm}[/]",
            vm.node,
            " ".join(str(allocated.address) for allocated in vm.addresses),
            f"[{colour}]{vm.phase}[/]",
            vm.since.astimezone().strftime("%H:%M:%S"),
            vm.waiting_for or "",
        )
    return table
