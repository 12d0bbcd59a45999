"""`import FILE.csv --pool …`: addresses that are in use already, from a CSV file."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from nats.aio.client import Client
from rich.markup import escape

from vmfabric.cli.connection import connection
from vmfabric.cli.csv_rows import Format, Line, Netbox, read
from vmfabric.cli.screen import console
from vmfabric.contract.addressing import ImportAddresses, Imported
from vmfabric.contract.errors import Code, Refused
from vmfabric.runtime import micro

_AT_ONCE = 1000
_BYTES_AT_ONCE = 900_000
"""The bus takes messages of 1 MiB, unless its server is told otherwise."""
_SECONDS = 15.0


def import_file(
    file: Annotated[Path, typer.Argument(help="CSV with a heading.", exists=True, dir_okay=False)],
    pool: Annotated[str, typer.Option("--pool", help="The pool that the addresses lie in.")],
    *,
    form: Annotated[
        Format,
        typer.Option("--format", help="plain: address,vm,owner,node,note; netbox: its export of IP addresses."),
    ] = Format.PLAIN,
    vrf: Annotated[
        str | None, typer.Option("--vrf", help="Of NetBox's export only this VRF; global: that of no name.")
    ] = None,
    vm_from_dns: Annotated[
        bool,
        typer.Option(
            "--vm-from-dns", help="Of NetBox's export: the VM is the first label of the DNS name, if no other."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be imported.")] = False,
) -> None:
    """Reserve addresses that are in use already; a VM of the name in the file may then ask for exactly its own."""
    if form is not Format.NETBOX and (vrf is not None or vm_from_dns):
        raise Refused(
            Code.INVALID_REQUEST, "--vrf and --vm-from-dns are of --format netbox; a plain file has no such columns"
        )
    lines = read(_text(file), form, origin=str(file), netbox=Netbox(vrf, vm_from_dns))
    if not lines:
        of_vrf = f" of VRF {vrf}" if vrf is not None else ""
        raise Refused(Code.INVALID_REQUEST, f"{file} has no row{of_vrf} in it; nothing is imported")
    if not asyncio.run(_import(lines, pool, dry_run=dry_run)):
        raise typer.Exit(1)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Refused(Code.INVALID_REQUEST, f"{file} is not text in UTF-8: {error.reason}") from error


async def _import(lines: Sequence[Line], pool: str, *, dry_run: bool) -> bool:
    """False when a row has a problem. Nothing is imported before every row was looked at."""
    batches = list(_batches(lines))
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
            found = [answer async for answer in _write(client, batches, pool)]
    new, unchanged = sum(answer.imported for answer in found), sum(answer.unchanged for answer in found)
    console.print(f"[green]{'would be imported' if dry_run else 'imported'}[/] {new}, {unchanged} were there already")
    return True


def _batches(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """The good ones, in parts that the bus takes."""
    batch: list[Line] = []
    size = 0
    for line in lines:
        if line.row is None:
            continue
        own = len(line.row.model_dump_json(exclude_none=True).encode()) + 1
        if batch and (len(batch) == _AT_ONCE or size + own > _BYTES_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += own
    if batch:
        yield batch


async def _write(client: Client, batches: Sequence[Sequence[Line]], pool: str) -> AsyncIterator[Imported]:
    """One part after the other, until one has a problem that it did not have before."""
    done = 0
    for batch in batches:
        answer = await _ask(client, batch, pool, dry_run=False)
        if answer.problems:
            first = answer.problems[0]
            raise Refused(
                Code.CONFLICT,
                f"something has changed in the pool meanwhile: {done} rows are imported, and then row "
                f"{batch[first.row - 1].number}: {first.sentence}. Import the same file again: what is there already "
                "stays as it is",
            )
        done += len(batch)
        yield answer


async def _ask(client: Client, lines: Sequence[Line], pool: str, *, dry_run: bool) -> Imported:
    rows = tuple(line.row for line in lines if line.row is not None)
    asked = ImportAddresses(pool=pool, rows=rows, dry_run=dry_run)
    body = asked.model_dump_json(exclude_none=True).encode()
    return Imported.model_validate_json(await micro.request(client, "ip.import", body, seconds=_SECONDS))
