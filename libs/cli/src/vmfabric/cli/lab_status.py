"""`lab status`: what runs, what does not, and where to read why."""

from collections.abc import Iterator, Sequence

import typer
from rich.table import Table

from vmfabric.cli.screen import clock, console
from vmfabric.lab import guests, units
from vmfabric.lab.lab import Lab
from vmfabric.lab.routing import refused_frames
from vmfabric.lab.topology import CONTROL
from vmfabric.lab.units import Condition, Health

_SHOWN_GUESTS = 4


def status() -> None:
    """Show every host and what runs on it. Exit code 1 when something does not."""
    lab = Lab.find()
    found = [units.health(lab, unit) for unit in units.units(lab)]
    console.print(_hosts(lab, found))
    console.print(f"[dim]bus {lab.nats_url}, directory {lab.state.directory}[/]", soft_wrap=True)
    for server, frames in refused_frames(lab.topology).items():
        console.print(f"the provider's switch has refused {frames} frames from {server}")
    for line in _remarks(found):
        console.print(line, soft_wrap=True)
    if not lab.is_complete:
        console.print("[bold red]half made[/]: `./vmfabric lab up` makes it anew, `./vmfabric lab down` removes it")
    if not lab.is_complete or any(one.condition is not Condition.RUNS for one in found):
        raise typer.Exit(1)


def is_up_already(lab: Lab) -> str:
    """What to tell somebody who wants to make a lab where there is one."""
    away = [one.name for one in (units.health(lab, unit) for unit in units.units(lab)) if not _runs(one)]
    count = len(guests.recorded(lab.state, lab.topology))
    if away:
        return (
            f"the lab in {lab.state.directory} is up, but unwell: {', '.join(away)} not running. "
            "`./vmfabric lab status` says more; `./vmfabric lab down` removes it, `./vmfabric lab up` makes a new one"
        )
    return (
        f"the lab in {lab.state.directory} is up already and healthy, with {count} guest{'' if count == 1 else 's'}: "
        "go on with it, or remove it with `./vmfabric lab down`"
    )


def _hosts(lab: Lab, found: Sequence[Health]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("host", "addresses", "management", "runs", "guests"):
        table.add_column(column)
    addresses = {host.name: f"{host.ipv4} {host.ipv6}" for host in lab.topology.network_hosts}
    management = {node.name: str(node.management) for node in lab.topology.all_nodes}
    management[CONTROL] = str(lab.topology.management.control)
    running = guests.recorded(lab.state, lab.topology)
    for host in lab.topology.hosts:
        table.add_row(
            f"[bold]{host}[/]",
            addresses.get(host, ""),
            management.get(host, ""),
            " ".join(_word(one) for one in found if one.name.startswith(f"{host}/")),
            _few([guest.vm for guest in running if guest.node == host]),
        )
    return table


def _word(one: Health) -> str:
    _, _, service = one.name.partition("/")
    match one.condition:
        case Condition.ENDED:
            return f"[bold red]{service}![/]"
        case Condition.STOPPED:
            return f"[yellow]{service}(stopped)[/]"
        case Condition.RUNS if one.restarts:
            return f"[yellow]{service}(+{one.restarts})[/]"
        case Condition.RUNS:
            return f"[green]{service}[/]"


def _remarks(found: Sequence[Health]) -> Iterator[str]:
    for one in found:
        end = f"ended {one.last_end} at {clock(one.ended_at)}" if one.ended_at else "does not run"
        log = f"log [dim]{one.log}[/]"
        match one.condition:
            case Condition.ENDED if one.again_at is not None:
                yield f"[bold red]![/] {one.name} {end}, is started again at {clock(one.again_at)}; {log}"
            case Condition.ENDED:
                yield f"[bold red]![/] {one.name} {end}; {log}"
            case Condition.RUNS if one.restarts:
                yield f"[yellow]+{one.restarts}[/] {one.name} was started again {_times(one.restarts)}: {end}; {log}"
    if any(one.condition is Condition.ENDED for one in found):
        yield (
            "[bold red]![/] should run and does not: its log says why; `./vmfabric lab restart NAME` starts it now, "
            "`./vmfabric lab dump DIRECTORY` writes down what everybody says"
        )
    for one in found:
        if one.condition is Condition.STOPPED:
            yield f"{one.name} was stopped; `./vmfabric lab start {one.name}` starts it"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _few(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_GUESTS
    return " ".join(names) if more <= 1 else f"{' '.join(names[:_SHOWN_GUESTS])} and {more} more"


def _runs(one: Health) -> bool:
    return one.condition is Condition.RUNS
