"""`publish`: an event from the command line, where no NATS client is at hand."""

import asyncio
from typing import Annotated

import typer

from vmfabric.cli.connection import connection
from vmfabric.cli.screen import console


def publish(
    subject: Annotated[str, typer.Argument(help="As vm.requested.")],
    body: Annotated[str, typer.Argument(help="JSON, published as it is.")],
) -> None:
    """Publish an event."""
    asyncio.run(_publish(subject, body.encode()))
    console.print(f"[green]✓[/] {subject} is kept")


async def _publish(subject: str, body: bytes) -> None:
    async with connection() as client:
        await client.jetstream(timeout=5).publish(subject, body)
