"""`import FILE.csv --pool …`: addresses that are in use already, from a CSV file."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from nats.aio.client import Client
from rich.markup import escape

from vmfabric.cli.connection import connection
from vmfabric.cli.csv_rows import Format, Line, read
from vmfabric.cli.screen import console
from vmfabric.contract.addressing import ImportAddresses, Imported
from vmfabric.contract.errors import Code, Refused
from vmfabric.runtime import micro

_AT_ONCE = 1000
_SECONDS = 15.0


def import_file(
    file: Annotated[Path, typer.Argument(help="CSV with a heading.", exists=True, dir_okay=False)],
    pool: Annotated[str, typer.Option("--pool", help="The pool that the addresses lie in.")],
    form: Annotated[
        Format,
        typer.Option("--format", help="plain: address,vm,owner,node,note; netbox: its export of IP addresses."),
    ] = Format.PLAIN,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be imported.")] = False,
) -> None:
    """Reserve addresses that are in use already; a VM of the name in the file may then ask for exactly its own."""
    lines = read(_text(file), form, origin=str(file))
    if not lines:
        raise Refused(Code.INVALID_REQUEST, f"{file} has no row in it; nothing is imported")
    if not asyncio.run(_import(lines, pool, dry_run=dry_run)):
        raise typer.Exit(1)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Refused(Code.INVALID_REQUEST, f"{file} is not text in UTF-8: {error.reason}") from error


async def _import(lines: Sequence[Line], pool: str, *, dry_run: bool) -> bool:
    """False when a row has a problem. Nothing is imported before every row was looked at."""
    good = [line for line in lines if line.row is not None]
    batches = [good[start : start + _AT_ONCE] for start in range(0, len(good), _AT_ONCE)]
    problems = {line.number: line.complaint for line in lines if line.row is None}
    async with connection() as client:
        found = [await _ask(client, batch, pool, dry_run=True) for batch in batches]
        for batch, answer in zip(batches, found, strict=True):
            problems |= {batch[problem.row - 1].number: problem.sentence for problem in answer.problems}
        for number in sorted(problems):
            console.print(f"[bold red]row {number}[/] {escape(problems[number])}", soft_wrap=True)
        if problems:
            console.print(f"nothing is imported: {len(problems)} of {len(lines)} rows have a problem")
            return False
        if not dry_run:
            found = [await _ask(client, batch, pool, dry_run=False) for batch in batches]
    if any(answer.problems for answer in found):
        raise Refused(Code.CONFLICT, "something has changed in the pool meanwhile; import the same file again")
    new, unchanged = sum(answer.imported for answer in found), sum(answer.unchanged for answer in found)
    console.print(f"[green]{'would be imported' if dry_run else 'imported'}[/] {new}, {unchanged} were there already")
    return True


async def _ask(client: Client, lines: Sequence[Line], pool: str, *, dry_run: bool) -> Imported:
    rows = tuple(line.row for line in lines if line.row is not None)
    asked = ImportAddresses(pool=pool, rows=rows, dry_run=dry_run)
    body = asked.model_dump_json(exclude_none=True).encode()
    return Imported.model_validate_json(await micro.request(client, "ip.import", body, seconds=_SECONDS))
