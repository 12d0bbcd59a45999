"""What every host, router, process and the bus say, in one directory: for a test that failed."""

import asyncio
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nats.errors
import nats.js.errors
from nats.js.api import ConsumerConfig, DeliverPolicy

from vmfabric.contract.streams import STREAMS
from vmfabric.lab import frr, guests, namespaces
from vmfabric.lab.errors import LabError
from vmfabric.lab.lab import Lab
from vmfabric.lab.programs import run
from vmfabric.lab.topology import SWITCH
from vmfabric.runtime.bus import open_client

_OF_HOST = (
    ("ip", "-details", "address"),
    ("ip", "route", "show", "table", "all"),
    ("ip", "-6", "route", "show", "table", "all"),
    ("ip", "neighbour"),
    ("nft", "list", "ruleset"),
)
_OF_ROUTER = (
    "show running-config",
    "show bgp summary",
    "show bgp ipv4 unicast",
    "show bgp ipv6 unicast",
    "show ip route",
    "show ipv6 route",
    "show bfd peers",
)
_BATCH = 200


def write(lab: Lab, directory: Path) -> None:
    """Write all of it; where something cannot be read, the file says why."""
    directory.mkdir(parents=True, exist_ok=True)
    if lab.state.logs.exists():
        shutil.copytree(lab.state.logs, directory / "logs", dirs_exist_ok=True)
    hosts = [lab.topology.namespace(host) for host in (SWITCH, *lab.topology.hosts)]
    for namespace in [*hosts, *(guest.namespace for guest in guests.recorded(lab.state, lab.topology))]:
        (directory / f"{namespace}.txt").write_text("".join(_of_host(namespace)))
    for router in lab.topology.routers:
        text = "".join(_section(command, partial(frr.vtysh, lab.topology, router, command)) for command in _OF_ROUTER)
        (directory / f"{router.name}-frr.txt").write_text(text)
    (directory / "events.txt").write_text(_section("streams", lambda: asyncio.run(_events(lab))))


def _of_host(namespace: str) -> list[str]:
    return [
        _section(" ".join(command), partial(run, *namespaces.inside(namespace, *command))) for command in _OF_HOST
    ]


def _section(title: str, read: Callable[[], str]) -> str:
    try:
        text = read()
    except (LabError, OSError, TimeoutError, nats.errors.Error) as error:
        text = f"could not be read: {error!r}\n"
    return f"### {title}\n{text}\n"


async def _events(lab: Lab) -> str:
    client = await open_client(lab.nats_url)
    jetstream = client.jetstream(timeout=2)
    lines: list[str] = []
    try:
        for stream in STREAMS:
            reader = await jetstream.pull_subscribe(
                ">", stream=stream.name, config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
            )
            left = (await jetstream.stream_info(stream.name)).state.messages
            while left > 0:
                for message in await reader.fetch(min(_BATCH, left), timeout=2):
                    left -= 1
                    at = message.metadata.timestamp.isoformat(timespec="milliseconds")
                    lines.append(f"{at} {message.subject} {message.data.decode(errors='replace')}\n")
            await reader.unsubscribe()
    finally:
        await client.close()
    return "".join(sorted(lines))
