"""The command line's connection to the bus."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats.errors
from nats.aio.client import Client

from vmfabric.contract.errors import Code, TryAgain
from vmfabric.runtime.bus import open_client
from vmfabric.runtime.settings import ServiceSettings


@asynccontextmanager
async def connection(url: str | None = None) -> AsyncIterator[Client]:
    """A client of the bus at `url`, or at VMFABRIC_NATS_URL. TryAgain when nobody answers there."""
    where = url or ServiceSettings().nats_url
    try:
        client = await open_client(where)
    except (OSError, TimeoutError, nats.errors.Error) as error:
        raise TryAgain(
            Code.INTERNAL, f"no NATS server answers at {where}; `./vmfabric lab up` starts one: {error}"
        ) from error
    async with client:
        yield client
