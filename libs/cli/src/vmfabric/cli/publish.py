"""`publish`: an event from the command line, where no NATS client is at hand."""

import asyncio
import json
import re
from typing import Annotated

import nats.js.errors
import typer

from vmfabric.cli.connection import connection
from vmfabric.cli.screen import console
from vmfabric.contract.errors import Code, TryAgain
from vmfabric.contract.streams import REQUESTS, STREAMS

_SUBJECT = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*")


def publish(
    subject: Annotated[str, typer.Argument(help="As vm.requested.")],
    body: Annotated[str, typer.Argument(help="JSON, published as it is.")],
) -> None:
    """Publish an event."""
    if not is_kept(subject):
        requests = ", ".join(event.subject_template.stem for event in REQUESTS)
        raise typer.BadParameter(f"nobody keeps {subject!r}; what can be requested is {requests}")
    try:
        json.loads(body)
    except ValueError as error:
        raise typer.BadParameter(f"the body is not JSON: {error}") from error
    asyncio.run(_publish(subject, body.encode()))
    console.print(f"[green]✓[/] {subject} is kept")


def is_kept(subject: str) -> bool:
    """Whether a stream keeps messages with this subject."""
    patterns = [pattern for stream in STREAMS for pattern in stream.subjects]
    return _SUBJECT.fullmatch(subject) is not None and any(_fits(subject, pattern) for pattern in patterns)


def _fits(subject: str, pattern: str) -> bool:
    expression = re.escape(pattern).replace(r"\*", r"[^.]+").replace(">", ".+")
    return re.fullmatch(expression, subject) is not None


async def _publish(subject: str, body: bytes) -> None:
    async with connection() as client:
        try:
            await client.jetstream(timeout=5).publish(subject, body)
        except nats.js.errors.NoStreamResponseError as error:
            raise TryAgain(
                Code.INTERNAL,
                f"no stream keeps {subject} yet: the services make it when they start; are they running?",
            ) from error
