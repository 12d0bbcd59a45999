"""The cluster of the examples in a running lab, as operators, platform services and the core see it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import nats.errors

from vmfabric.cli.documents import read
from vmfabric.contract.addresses import Family, Prefix
from vmfabric.contract.admin import Applied, Change, Drain, Nodes, NodeState, VmPhase, Vms, VmState
from vmfabric.contract.errors import Refused, TryAgain
from vmfabric.contract.node import NodeDrained, NodeLost
from vmfabric.contract.vm import VmDeleted, VmFailed, VmReady
from vmfabric.lab import frr, traces
from vmfabric.lab.client import LabClient
from vmfabric.lab.hosts import answers_ping, bgp_routes
from vmfabric.lab.lab import Lab
from vmfabric.lab.topology import Node

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
CLUSTER = "msk"


class ExtraPool(NamedTuple):
    """A pool of one block beside the example's."""

    network: str
    block: str
    ipv6_length: int = 128


EXTRA_POOLS = {
    "tiny": ExtraPool("203.0.113.0/24", "203.0.113.0/31"),
    "wide": ExtraPool("2001:db8:200::/40", "2001:db8:200::/48", ipv6_length=64),
    "zone": ExtraPool("192.0.2.0/24", "192.0.2.0/30"),
}
"""Their names come behind that of the example's, so nobody gets them unasked."""
Address = IPv4Address | IPv6Address
C = TypeVar("C", bound="Cluster")


class Cluster:
    """The cluster of the example of an ip-fabric, seen from outside."""

    name = CLUSTER
    example = EXAMPLES / "ip-fabric.yaml"
    router = "core"
    """The host that VMs are pinged from."""
    quarantine_seconds = 60
    """In the 300 s of the example the tests give more addresses back than its pool has."""
    extra_pools: Mapping[str, ExtraPool] = EXTRA_POOLS

    def __init__(self, lab: Lab, outside: LabClient) -> None:
        self.lab = lab
        self.outside = outside

    async def apply(self, **changes: Any) -> None:
        """Apply the example, with other values in its cluster."""
        changed = {"pool": {"quarantine_seconds": self.quarantine_seconds}, "cluster": changes}
        for document in read(self.example.read_text(), origin="example"):
            spec = {**document.spec, **changed.get(document.kind, {})}
            await self.outside.ask(f"{document.kind}.apply", {"spec": spec}, Applied)
        for name, extra in self.extra_pools.items():
            await self.outside.ask("network.apply", {"spec": {"name": name, "prefix": extra.network}}, Applied)
            own = {"blocks": [extra.block], "ipv6_length": extra.ipv6_length}
            pool = {"name": name, "cluster": self.name, "quarantine_seconds": 0, **own}
            await self.outside.ask("pool.apply", {"spec": pool}, Applied)

    async def settled(self) -> None:
        """Every node is heard and has its sessions."""
        async with asyncio.timeout(30):
            while True:
                if await self._are_joined() and all(map(self._has_its_sessions, self.lab.topology.nodes)):
                    return
                await asyncio.sleep(0.1)

    async def _are_joined(self) -> bool:
        try:
            nodes = (await self.outside.ask("node.list", {}, Nodes)).nodes
        except (TryAgain, Refused, nats.errors.Error):  # the bus, the scheduler or its database is starting
            return False
        return all(node.state is NodeState.JOINED for node in nodes)

    def _has_its_sessions(self, node: Node) -> bool:
        """An FRR that is not configured yet has no session down, and none up either."""
        shown = json.loads(frr.vtysh(self.lab.topology, node, "show bgp ipv4 unicast summary json"))
        states = [peer["state"] for peer in shown.get("peers", {}).values()]
        return states == ["Established"] * len(self.lab.topology.reflectors)

    async def request(self, vm: str, **changes: Any) -> None:
        """Ask for a small VM."""
        body = {"cluster": self.name, "vm": vm, "cpu": 1, "memory_mb": 64, "disk_gb": 1, **changes}
        await self.outside.publish("vm.requested", body)

    async def ready(self, vm: str, seconds: float = 30) -> VmReady:
        """Its vm.ready, unless it fails."""
        return await self.outside.wait_for(VmReady, vm=vm, unless=VmFailed, seconds=seconds)

    async def all_ready(self, names: Sequence[str]) -> Sequence[VmState]:
        """Their states when all are ready; asked for, since a fact may have been published while nobody heard."""
        async with asyncio.timeout(90):
            while True:
                try:
                    states = {state.vm: state for state in (await self.outside.ask("vm.list", {}, Vms)).vms}
                except (TryAgain, Refused):  # the scheduler or its database is starting
                    states = {}
                if all(name in states and states[name].phase is VmPhase.READY for name in names):
                    return [states[name] for name in names]
                await asyncio.sleep(0.2)

    async def moved(self, vm: str, node: str, seconds: float = 60) -> None:
        """It is ready on this node; asked for, since a fact may have been published while nobody heard."""
        async with asyncio.timeout(seconds):
            while True:
                (state,) = await self.all_ready([vm])
                if state.node == node and state.other_node is None:
                    return
                await asyncio.sleep(0.1)

    async def failed(self, vm: str) -> VmFailed:
        """Its vm.failed."""
        return await self.outside.wait_for(VmFailed, vm=vm, seconds=45)

    async def delete(self, *vms: str) -> None:
        """Remove these and wait until they are gone."""
        for vm in vms:
            await self._until_kept("vm.delete.requested", {"cluster": self.name, "vm": vm})
        for vm in vms:
            await self.outside.wait_for(VmDeleted, vm=vm, seconds=60)

    async def _until_kept(self, subject: str, body: dict[str, object]) -> None:
        """As whoever needs an answer: again, until the bus keeps it; it may be looking for a leader."""
        async with asyncio.timeout(30):
            while True:
                try:
                    await self.outside.publish(subject, body)
                except (nats.errors.Error, TimeoutError):
                    await asyncio.sleep(0.2)
                else:
                    return

    async def no_routes(self, seconds: float = 5) -> None:
        """Nothing of any VM is left in the core's kernel: a withdrawal needs a moment from the node to the core."""
        async with asyncio.timeout(seconds):
            while bgp_routes(self.lab, "core"):
                await asyncio.sleep(0.02)

    def local_preference(self, prefix: Prefix) -> int | None:
        """Of the core's best path; None when it has none."""
        core = self.lab.router("core")
        shown = json.loads(frr.vtysh(self.lab.topology, core, f"show bgp {Family.of(prefix)} unicast {prefix} json"))
        best = (path for path in shown.get("paths", ()) if path.get("bestpath", {}).get("overall"))
        return next((int(path["locPrf"]) for path in best), None)

    def next_hops(self, prefix: Prefix) -> set[str]:
        """Of every path that the reflectors and the core know, best or not."""
        found: set[str] = set()
        for host in ("rr1", "rr2", "core"):
            command = f"show bgp {Family.of(prefix)} unicast {prefix} json"
            shown = json.loads(frr.vtysh(self.lab.topology, self.lab.router(host), command))
            found |= {hop["ip"] for path in shown.get("paths", ()) for hop in path["nexthops"]}
        return found

    async def evacuated(self, vms: Sequence[VmReady], *, node: str, target: str) -> None:
        """The node is lost, and these VMs of it are ready on the other one."""
        await self.outside.wait_for(NodeLost, node=node, seconds=30)
        self.outside.heard.clear()
        fenced = {"cluster": self.name, "node": node, "fence": "power-cut"}
        asked = await self.outside.ask("node.evacuate", fenced, Drain)
        assert (asked.change, asked.vms, asked.staying) == (Change.CHANGED, len(vms), ()), str(asked)
        for vm in vms:
            again = await self.ready(vm.vm)
            assert (again.node, again.addresses) == (target, vm.addresses)
            assert again.generation > vm.generation
        await self.outside.wait_for(NodeDrained, unless=VmFailed)

    async def answers(self, address: Address, seconds: float = 10) -> bool:
        """Whether a ping from the router is answered within so many seconds."""
        deadline = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < deadline:
            if await asyncio.to_thread(answers_ping, self.lab, self.router, address):
                return True
        return False

    async def reachable(self, ready: VmReady) -> None:
        """Every address of the VM answers."""
        for allocated in ready.addresses:
            assert await self.answers(allocated.address), f"{ready.vm} does not answer on {allocated.address}"


@asynccontextmanager
async def emptied(cluster: C) -> AsyncIterator[C]:
    """The cluster without any VM; afterwards the VMs that it has got go, and nothing of them may be left."""
    await cluster.apply()
    await cluster.settled()
    before = await traces.settled(cluster.lab, cluster.outside)
    yield cluster
    await cluster.settled()
    left = [state.vm for state in (await cluster.outside.ask("vm.list", {}, Vms)).vms]
    cluster.outside.heard.clear()
    await cluster.delete(*left)
    remains = await traces.left_over(cluster.lab, cluster.outside, before)
    assert not remains, f"left behind: {remains}"


class SwitchingCluster(Cluster):
    """The same of the example of a physical network."""

    name = "ams"
    example = EXAMPLES / "switching.yaml"
    router = "gw"
    extra_pools: Mapping[str, ExtraPool] = {}


class RoutingCluster(Cluster):
    """The same of the example of rented servers, whose addresses are few."""

    name = "fsn"
    example = EXAMPLES / "routing.yaml"
    router = "provider"
    quarantine_seconds = 0
    extra_pools: Mapping[str, ExtraPool] = {}


def address_of(ready: VmReady, family: Family) -> Address:
    """Its first one of a family."""
    return next(allocated.address for allocated in ready.addresses if allocated.family is family)
