"""What VMs leave behind in a lab while they exist: read before and after, the difference must be empty."""

import asyncio
import re
from collections.abc import Iterator

from vmfabric.contract.admin import Addresses
from vmfabric.contract.desired import HANDED_OUT_KEY
from vmfabric.lab import frr, guests
from vmfabric.lab.client import LabClient
from vmfabric.lab.hosts import bgp_routes, run_on
from vmfabric.lab.lab import Lab
from vmfabric.lab.topology import AnyNode

Traces = frozenset[str]
"""One line for each thing: a link, an address, a route, a rule, a line of FRR, a key, an allocation, a guest."""

_SETTLING_SECONDS = 0.3


async def read(lab: Lab, outside: LabClient) -> Traces:
    """Everything that VMs may have left. An error when any of it cannot be read."""
    there = await asyncio.to_thread(on_hosts, lab)
    # A link that has been made anew since, by a reboot for one, has another number.
    unnumbered = [re.sub(r": address [0-9]+: ", ": address ", line) for line in there]
    return frozenset([*unnumbered, *await _keys(outside), *await _addresses(outside)])


def on_hosts(lab: Lab) -> Traces:
    """Those of them in kernels and FRR, which can be read without the bus."""
    return frozenset(_on_hosts(lab))


async def settled(lab: Lab, outside: LabClient, *, seconds: float = 10.0) -> Traces:
    """The same, when it has stopped changing, or after so many seconds."""
    before = await read(lab, outside)
    async with asyncio.timeout(seconds):
        while True:
            await asyncio.sleep(_SETTLING_SECONDS)
            now = await read(lab, outside)
            if now == before:
                return now
            before = now


async def left_over(lab: Lab, outside: LabClient, before: Traces, *, seconds: float = 10.0) -> list[str]:
    """What is there now and was not there before, after waiting so many seconds for it to go; empty when all went."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        left = await read(lab, outside) - before
        if not left or loop.time() > deadline:
            return sorted(left)
        await asyncio.sleep(0.1)


def _on_hosts(lab: Lab) -> Iterator[str]:
    for router in lab.topology.routers:
        for prefix, gateway in bgp_routes(lab, router.name).items():
            yield f"{router.name}: route {prefix} by BGP via {gateway}"
    for node in lab.topology.all_nodes:
        yield from _on_node(lab, node)
    for node in lab.topology.nodes:
        for line in frr.vtysh(lab.topology, node, "show running-config").splitlines():
            # FRR numbers the entries of a list in the order in which they came.
            yield f"{node.name}: FRR {re.sub(r' seq [0-9]+ ', ' ', line.strip())}"
    for guest in guests.recorded(lab.state, lab.topology):
        yield f"{guest.node}: guest {guest.name}"


def _on_node(lab: Lab, node: AnyNode) -> Iterator[str]:
    for title, command in (
        ("link", ("ip", "-brief", "link", "show")),
        ("address", ("ip", "-oneline", "address", "show")),
        ("route", ("ip", "-4", "route", "show", "table", "all")),
        ("route", ("ip", "-6", "route", "show", "table", "all")),
        ("neighbour", ("ip", "neighbour", "show", "nud", "permanent")),
        ("proxy entry", ("ip", "neighbour", "show", "proxy")),
        ("rule", ("nft", "--stateless", "list", "ruleset")),
    ):
        for line in run_on(lab, node.name, *command).splitlines():
            # Whether a bridge has a carrier, or has had one, is no trace of its ports.
            words = [word for word in line.split() if word != "linkdown"]
            if words[:2] != ["multicast", "ff00::/8"]:
                yield f"{node.name}: {title} {' '.join(words)}"


async def _keys(outside: LabClient) -> list[str]:
    # That something was removed once is no trace of any VM.
    return [f"desired state {key}" for key in await outside.desired() if key != HANDED_OUT_KEY.stem]


async def _addresses(outside: LabClient) -> list[str]:
    found: list[str] = []
    after = ""
    while True:
        page = await outside.ask("ip.list", {"after": after}, Addresses)
        # An address in quarantine belongs to nobody; that it rests is what should be.
        found += [f"address {record.address} {record.state}" for record in page.addresses if record.free_at is None]
        if page.next is None:
            return found
        after = page.next
