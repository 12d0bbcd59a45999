"""`explain` and `ask`: questions to the services, where no NATS client is at hand."""

import asyncio
import json
import re
from typing import Annotated

import typer

from vmfabric.cli.connection import connection
from vmfabric.cli.screen import console
from vmfabric.contract.explanation import VmExplanation
from vmfabric.runtime import micro

_SUBJECT = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")


def explain(vm: Annotated[str, typer.Argument(help="As msk/vm12.")]) -> None:
    """Say why a VM is reachable or not, from what is wanted to what the reflectors know; 1 when not."""
    cluster, slash, name = vm.partition("/")
    if not slash:
        raise typer.BadParameter(f"say of which cluster {vm} is, as in msk/{vm}")
    answer = asyncio.run(_ask("vm.explain", json.dumps({"cluster": cluster, "vm": name})))
    found = VmExplanation.model_validate_json(answer)
    for finding in found.findings:
        mark = "[green]✓[/]" if finding.is_right else "[bold red]✗[/]"
        console.print(f"{mark} [dim]{finding.about:<14}[/]", end="")
        console.print(finding.sentence, markup=False, soft_wrap=True)
    if not all(finding.is_right for finding in found.findings):
        raise typer.Exit(1)


def ask(
    subject: Annotated[str, typer.Argument(help="As node.list; docs/contract.md has them all.")],
    body: Annotated[str, typer.Argument(help="JSON.")] = "{}",
) -> None:
    """Ask a service, and print its answer."""
    if _SUBJECT.fullmatch(subject) is None:
        raise typer.BadParameter(f"{subject!r} is no subject such as node.list")
    answer = asyncio.run(_ask(subject, body))
    console.print_json(answer)


async def _ask(subject: str, body: str) -> str:
    async with connection() as client:
        return (await micro.request(client, subject, body.encode())).decode()
