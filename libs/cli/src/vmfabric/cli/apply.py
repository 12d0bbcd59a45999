"""`apply -f FILE`: YAML documents for the `*.apply` requests."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from nats.aio.client import Client
from rich.markup import escape

from vmfabric.cli.connection import connection
from vmfabric.cli.documents import Document, check, read
from vmfabric.cli.screen import console
from vmfabric.contract.admin import Applied, Change
from vmfabric.contract.errors import Code, Refused
from vmfabric.runtime import micro

_COLOURS = {Change.CREATED: "green", Change.CHANGED: "yellow", Change.UNCHANGED: "dim"}
_LACKING = {Code.UNKNOWN_CLUSTER, Code.UNKNOWN_NETWORK}


def apply(
    file: Annotated[
        Path, typer.Option("--file", "-f", help="YAML documents `kind: …`, `spec: {…}`.", exists=True, dir_okay=False)
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
) -> None:
    """Make networks, pools, clusters and nodes as the file says."""
    documents = read(_text(file), origin=str(file))
    check(documents, origin=str(file))
    if not asyncio.run(_rehearse(documents) if dry_run else _apply(documents)):
        raise typer.Exit(1)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except UnicodeDecodeError as error:
        raise Refused(Code.INVALID_REQUEST, f"{file} is not text in UTF-8: {error.reason}") from error


async def _apply(documents: Sequence[Document]) -> bool:
    async with connection() as client:
        for place, document in enumerate(documents, 1):
            try:
                await apply_one(client, document)
            except Refused as error:
                rest = len(documents) - place
                behind = f"; nor is what follows in the file applied ({rest} more)" if rest else ""
                raise Refused(error.code, error.sentence + behind) from error
    return True


async def _rehearse(documents: Sequence[Document]) -> bool:
    """Say what would change. False when something would be refused.

    The services know nothing of the documents before: what needs one of them can be checked only when that is there.
    """
    changing: list[Document] = []
    is_fine = True
    async with connection() as client:
        for document in documents:
            try:
                applied = await _ask(client, document, dry_run=True)
            except Refused as error:
                needed = document.needs(changing) if error.code in _LACKING else None
                if needed is None:
                    is_fine = False
                    console.print(f"[bold red]would be refused[/] {escape(error.sentence)}", soft_wrap=True)
                    continue
                # A pool may be there already, with other blocks; a node without its cluster cannot.
                done = "created" if document.kind == "node" else "created or changed"
                what = f"[green]would be {done}[/] {document.kind} [bold]{escape(document.name)}[/]"
                console.print(
                    f"{what}; cannot be checked further before {needed.kind} {needed.name} exists", soft_wrap=True
                )
                changing.append(document)
            else:
                console.print(_sentence(applied))
                changing += [] if applied.change is Change.UNCHANGED else [document]
    return is_fine


async def apply_one(client: Client, document: Document) -> None:
    """Ask the service that owns the kind, and print its answer. Refused or TryAgain with the document's name."""
    console.print(_sentence(await _ask(client, document, dry_run=False)))


async def _ask(client: Client, document: Document, *, dry_run: bool) -> Applied:
    try:
        answer = await micro.request(client, f"{document.kind}.apply", document.body(dry_run=dry_run))
    except Refused as error:
        raise Refused(error.code, f"{document.kind} {document.name}: {error.sentence}") from error
    return Applied.model_validate_json(answer)


def _sentence(applied: Applied) -> str:
    would = "would be " if applied.dry_run and applied.change is not Change.UNCHANGED else ""
    fields = f" [dim]{', '.join(applied.fields)}[/]" if applied.fields and applied.change is Change.CHANGED else ""
    return f"[{_COLOURS[applied.change]}]{would}{applied.change}[/] {applied.kind} [bold]{applied.name}[/]{fields}"
