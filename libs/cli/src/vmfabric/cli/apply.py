"""`apply -f FILE`: YAML documents for the `*.apply` requests."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from nats.aio.client import Client

from vmfabric.cli.connection import connection
from vmfabric.cli.documents import Document, read
from vmfabric.cli.screen import console
from vmfabric.contract.admin import Applied, Change
from vmfabric.contract.errors import Refused
from vmfabric.runtime import micro

_COLOURS = {Change.CREATED: "green", Change.CHANGED: "yellow", Change.UNCHANGED: "dim"}


def apply(
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML documents `kind: …`, `spec: {…}`.", exists=True)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
) -> None:
    """Make networks, pools, clusters and nodes as the file says."""
    asyncio.run(_apply(read(file.read_text(), origin=str(file)), dry_run=dry_run))


async def _apply(documents: Sequence[Document], *, dry_run: bool) -> None:
    async with connection() as client:
        for document in documents:
            await apply_one(client, document, dry_run=dry_run)


async def apply_one(client: Client, document: Document, *, dry_run: bool = False) -> None:
    """Ask the service that owns the kind, and print its answer. Refused or TryAgain with the document's name."""
    body = json.dumps({"spec": document.spec, "dry_run": dry_run}).encode()
    try:
        answer = await micro.request(client, f"{document.kind}.apply", body)
    except Refused as error:
        raise Refused(error.code, f"{document.kind} {document.name}: {error.sentence}") from error
    console.print(_sentence(Applied.model_validate_json(answer)))


def _sentence(applied: Applied) -> str:
    would = "would be " if applied.dry_run and applied.change is not Change.UNCHANGED else ""
    fields = f" [dim]{', '.join(applied.fields)}[/]" if applied.fields and applied.change is Change.CHANGED else ""
    return f"[{_COLOURS[applied.change]}]{would}{applied.change}[/] {applied.kind} [bold]{applied.name}[/]{fields}"
