"""The command line's connection to the bus."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats.errors
from nats.aio.client import Client

from vmfabric.contract.errors import Code, TryAgain
from vmfabric.lab.control_plane import operators_url
from vmfabric.lab.state import State
from vmfabric.runtime.bus import open_client
from vmfabric.runtime.settings import ServiceSettings


def bus_url() -> str:
    """What VMFABRIC_NATS_URL says; without it the bus of the lab, if there is one, or NATS on this machine."""
    settings = ServiceSettings()
    if "nats_url" in settings.model_fields_set:
        return settings.nats_url
    record = State.of_environment().record()
    return settings.nats_url if record is None else operators_url(record.topology)


@asynccontextmanager
async def connection() -> AsyncIterator[Client]:
    """A client of the bus. TryAgain when nobody answers there, or when the connection is lost."""
    url = bus_url()
    try:
        client = await open_client(url)
    except (OSError, ValueError, nats.errors.Error) as error:
        raise TryAgain(
            Code.INTERNAL, f"no NATS server answers at {url}; `./vmfabric lab up` starts one: {error}"
        ) from error
    try:
        async with client:
            yield client
    except (nats.errors.Error, TimeoutError) as error:
        raise TryAgain(Code.INTERNAL, f"the bus at {url} does not answer any more: {error!r}") from error
