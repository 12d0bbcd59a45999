"""What must be true when everything has been healed: in Postgres, in kernels, in the core, and in the history."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, timedelta
from ipaddress import ip_network
from typing import TypeVar

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from chaos.load import Load
from history.ownership import Ownership, said_at
from outside.cluster import CLUSTER, Cluster
from vmfabric.contract.addresses import host_prefix, named_by
from vmfabric.contract.admin import Addresses, Pools, VmPhase, VmState
from vmfabric.contract.explanation import NodeAudit
from vmfabric.contract.model import Event
from vmfabric.contract.streams import FACT_STREAM
from vmfabric.contract.vm import VmFailed, VmPlaced
from vmfabric.lab.client import LabClient, read
from vmfabric.lab.hosts import bgp_routes, run_on

E = TypeVar("E", bound=Event)

_SETTLED_SECONDS = 90.0
_AUDIT_SECONDS = 20.0
_BATCH = 500
_FETCH_SECONDS = 20.0
_READ_SECONDS = 60.0
_AGAIN_SECONDS = 0.2


async def settled(cluster: Cluster, load: Load) -> list[VmState]:
    """Every VM that is there, when nothing is under way any more. TimeoutError when something stays so."""
    async with asyncio.timeout(_SETTLED_SECONDS):
        await cluster.settled()
        while True:
            states = await load.states()
            if states is not None and all(it.phase is VmPhase.READY and not it.waiting_for for it in states.values()):
                return list(states.values())
            await asyncio.sleep(0.3)


async def wrong(cluster: Cluster, load: Load, vms: list[VmState]) -> list[str]:
    """Everything that is not as it should be, in words."""
    found = [*_answers(load, vms, await _explained(cluster.outside))]
    found += await _database(cluster.outside, vms)
    found += await asyncio.to_thread(lambda: list(_data_plane(cluster, vms)))
    found += [f"node.audit of {it.name}: {sentence}" for it in cluster.lab.topology.nodes
              for sentence in await _audited(cluster, it.name)]  # fmt: skip
    found += [f"{it.vm} does not answer on {a.address}" for it in vms for a in it.addresses
              if not await cluster.answers(a.address)]  # fmt: skip
    return found


async def kept(outside: LabClient, kind: type[E]) -> list[E]:
    """Every fact of this kind that the stream has."""
    return [
        event for message in await _facts(outside) if isinstance(event := read(message.subject, message.data), kind)
    ]


async def history(outside: LabClient) -> tuple[int, list[str]]:
    """How many facts of addresses there were since the bus began, and what cannot be in them."""
    pools = (await outside.ask("pool.list", {}, Pools)).pools
    rest = {pool.spec.name: timedelta(seconds=pool.spec.quarantine_seconds) for pool in pools}
    ownership = Ownership(lambda pool: rest[pool])
    found: list[str] = []
    for message in await _facts(outside):
        event = read(message.subject, message.data)
        at = said_at(message.headers or {}, message.metadata.timestamp.astimezone(UTC))
        found += ownership.hear(event, at) if event is not None else ()
    return ownership.facts, found


async def _explained(outside: LabClient) -> set[str]:
    """VMs of which a `vm.failed` was said since they were placed last, or that never were."""
    found: set[str] = set()
    for message in await _facts(outside):
        match read(message.subject, message.data):
            case VmFailed(vm=vm):
                found.add(vm)
            case VmPlaced(vm=vm):
                found.discard(vm)
            case _:
                pass
    return found


async def _audited(cluster: Cluster, node: str) -> list[str]:
    """What an audit finds twice: kernel, FRR, bucket, ipam, and what the reflectors send to the node."""
    asked = {"cluster": CLUSTER, "node": node}
    try:
        async with asyncio.timeout(_AUDIT_SECONDS):
            while found := (await cluster.outside.ask("node.audit", asked, NodeAudit)).findings:
                await asyncio.sleep(1)
    except TimeoutError:
        return [finding.sentence for finding in found]
    return []


def _answers(load: Load, vms: list[VmState], failed: set[str]) -> Iterator[str]:
    there = {it.vm for it in vms}
    for vm, wanted in load.wanted.items():
        if wanted and vm not in there and vm not in failed:
            yield f"{vm} was asked for, is not there, and nobody said why"
        if not wanted and vm in there:
            yield f"{vm} is there though its removal was asked for last"


async def _database(outside: LabClient, vms: list[VmState]) -> list[str]:
    """ipam and the scheduler agree on who has what."""
    leased: dict[str, str] = {}
    after = ""
    while True:
        page = await outside.ask("ip.list", {"after": after}, Addresses)
        leased |= {str(it.address): it.vm or "nobody" for it in page.addresses if it.free_at is None}
        if page.next is None:
            break
        after = page.next
    held = {str(a.address): it.vm for it in vms for a in it.addresses}
    return [
        f"{address} is {leased.get(address)}'s in ipam and {held.get(address)}'s in the scheduler"
        for address in sorted(leased.keys() | held.keys())
        if leased.get(address) != held.get(address)
    ]


def _data_plane(cluster: Cluster, vms: list[VmState]) -> Iterator[str]:
    """Each VM is wired on its own node only, and the core sends its packets there."""
    nodes = {node.name: str(node.ipv4) for node in cluster.lab.topology.nodes}
    routes = {str(named_by(prefix)): hop for prefix, hop in bgp_routes(cluster.lab, "core").items()}
    wired = {name: _wired(cluster, name) for name in nodes}
    for vm in vms:
        for address in (it.address for it in vm.addresses):
            hop = routes.get(str(address))
            if address.version == 4 and hop != nodes[vm.node]:
                yield f"{vm.vm} is on {vm.node}, but the core sends {address} to {hop}"
            have = sorted(name for name, prefixes in wired.items() if str(host_prefix(address)) in prefixes)
            if have != [vm.node]:
                yield f"{vm.vm} is on {vm.node}, but {address} is routed on {have}"
    held = {str(it.address) for vm in vms for it in vm.addresses}
    for stray in routes.keys() - held:
        yield f"the core has a route to {stray}, which nobody has"


def _wired(cluster: Cluster, node: str) -> set[str]:
    shown = [
        json.loads(run_on(cluster.lab, node, "ip", family, "-j", "route", "show", "proto", "86"))
        for family in ("-4", "-6")
    ]
    return {str(ip_network(row["dst"])) for rows in shown for row in rows}


async def _facts(outside: LabClient) -> list[Msg]:
    """Every fact that the stream keeps, in its order. A nats-server that was struck may still be looked for as the
    leader of the stream or of the reader, so all of it is asked again. TimeoutError when it does not come in time.
    """
    jetstream = outside.client.jetstream(timeout=5)
    async with asyncio.timeout(_READ_SECONDS):
        while True:
            try:
                return await _read_all(jetstream)
            except (nats.errors.Error, nats.js.errors.ServiceUnavailableError) as error:
                print(f"stream {FACT_STREAM.name} is read again: {error!r}")
                await asyncio.sleep(_AGAIN_SECONDS)


async def _read_all(jetstream: JetStreamContext) -> list[Msg]:
    # The stream's leader says which is the last: a consumer may be on a server that has yet to catch up.
    last = (await jetstream.stream_info(FACT_STREAM.name)).state.last_seq
    reader = await jetstream.pull_subscribe(">", stream=FACT_STREAM.name)
    found: list[Msg] = []
    read_to = 0
    try:
        while read_to < last:
            for message in await reader.fetch(min(last - read_to, _BATCH), timeout=_FETCH_SECONDS):
                await message.ack()
                found.append(message)
                read_to = message.metadata.sequence.stream
    finally:
        await reader.unsubscribe()
    return found
