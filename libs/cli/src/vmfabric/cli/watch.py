"""`watch`: events as they come, or a table of the VMs."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, assert_never

import typer
from nats.aio.client import Client
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vmfabric.cli.connection import bus_url, connection
from vmfabric.cli.facts import line, whole
from vmfabric.cli.listening import Back, Heard, Listener, Lost, News
from vmfabric.cli.screen import clock, console, duration
from vmfabric.contract.admin import ListOfCluster, VmPhase, Vms, VmState
from vmfabric.contract.errors import VmfabricError
from vmfabric.runtime import micro

_REFRESH_SECONDS = 0.5
_SORT_SECONDS = 0.05
"""Each stream is heard on its own way; within so long, what came is shown in the order in which it was published."""
_COLOURS = {VmPhase.READY: "green", VmPhase.ALLOCATING: "cyan", VmPhase.WIRING: "cyan"}


def watch(
    table: Annotated[bool, typer.Option("--table", help="A live table of the VMs instead of events.")] = False,
    heartbeats: Annotated[bool, typer.Option("--heartbeats", help="Show the nodes' heartbeats too.")] = False,
) -> None:
    """Show events as they come, until Ctrl-C. When the bus goes away and comes back, nothing is missed."""
    try:
        asyncio.run(_watch_vms() if table else _watch_events(heartbeats=heartbeats))
    except KeyboardInterrupt:
        console.print()


async def _watch_events(*, heartbeats: bool) -> None:
    news: asyncio.Queue[News] = asyncio.Queue()
    listener = Listener(bus_url(), news.put_nowait, heartbeats=heartbeats)
    async with connection() as client:
        await listener.begin(client)
    console.print(f"[dim]listening at {bus_url()}[/]", soft_wrap=True)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listener.run())
        tasks.create_task(_show(news))


async def _show(news: asyncio.Queue[News]) -> None:
    while True:
        batch = [await news.get()]
        await asyncio.sleep(_SORT_SECONDS)
        while not news.empty():
            batch.append(news.get_nowait())
        for text in in_order(batch):
            console.print(text, soft_wrap=True)


def in_order(batch: list[News]) -> list[Text]:
    """What to print: messages by their time, and nothing moved over a loss of the connection."""
    shown: list[Text] = []
    heard: list[Heard] = []
    for one in [*batch, None]:
        if isinstance(one, Heard):
            heard.append(one)
            continue
        heard.sort(key=lambda each: each.at)
        shown += [line(_moment(each.at), each.subject, each.body, each.headers) for each in heard]
        heard = []
        shown += [] if one is None else [_notice(one)]
    return shown


def _notice(news: Lost | Back) -> Text:
    now = _moment(datetime.now(UTC))
    match news:
        case Lost():
            return Text(f"{now}  connection lost: {news.reason}; trying again until Ctrl-C", "bold red")
        case Back(missing=()):
            return Text(f"{now}  connected again after {duration(news.seconds)}; nothing is missing", "bold green")
        case Back():
            missing = f"some events of {', '.join(news.missing)} are missing"
            return Text(f"{now}  connected again after {duration(news.seconds)}; {missing}", "bold yellow")
        case _:
            assert_never(news)


def _moment(at: datetime) -> str:
    return at.astimezone().isoformat(timespec="milliseconds")[11:23]


async def _watch_vms() -> None:
    found: list[VmState] = []
    trouble = ""
    async with connection() as client:
        found = await vms(client)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                async with connection() as client:
                    while True:
                        found, trouble = await vms(client), ""
                        live.update(_table(found, trouble), refresh=True)
                        await asyncio.sleep(_REFRESH_SECONDS)
            except VmfabricError as error:
                trouble = trouble or f"as of {clock(datetime.now(UTC))}: {error.sentence}"
            live.update(_table(found, trouble), refresh=True)
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


def _table(found: list[VmState], trouble: str) -> Table:
    title = Text.assemble(
        "1 VM" if len(found) == 1 else f"{len(found)} VMs", (f"  {trouble}" if trouble else "", "bold red")
    )
    table = Table(box=None, header_style="dim", pad_edge=False, title=title, title_justify="left")
    for column in ("VM", "node", "addresses", "phase", "since", "waits for"):
        table.add_column(column)
    for vm in found:
        colour = _COLOURS.get(vm.phase, "yellow")
        table.add_row(
            f"[bold]{vm.cluster}/{vm.vm}[/]",
            vm.node,
            " ".join(map(whole, vm.addresses)),
            f"[{colour}]{vm.phase}[/]",
            clock(vm.since),
            vm.waiting_for or "",
        )
    return table
