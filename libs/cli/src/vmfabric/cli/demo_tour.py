"""The demo of one network type: its cluster is applied, VMs come, answer, reach each other, and go."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vmfabric.cli import demo_report
from vmfabric.cli.apply import apply_one
from vmfabric.cli.demo_plans import Plan
from vmfabric.cli.demo_report import VmTimes
from vmfabric.cli.documents import read
from vmfabric.cli.facts import line
from vmfabric.cli.screen import console, step
from vmfabric.contract.addresses import Family, HostAddress
from vmfabric.contract.cluster import NetworkType
from vmfabric.contract.guest import GuestRunning
from vmfabric.contract.node import NodeJoined
from vmfabric.contract.route import BgpSessionUp
from vmfabric.contract.vm import VmDeleted, VmFailed, VmReady
from vmfabric.lab import traces
from vmfabric.lab.client import Heard, LabClient, connect
from vmfabric.lab.errors import LabError
from vmfabric.lab.hosts import answers_ping
from vmfabric.lab.lab import Lab
from vmfabric.lab.routing import refused_frames

_EXAMPLES = Path("deploy/examples")
_SIZE = {"cpu": 1, "memory_mb": 1024, "disk_gb": 10}
_READY_SECONDS = 60.0
_PING_SECONDS = 10.0
_PINGS = 4
"""At the same time."""
_SHOW_ALL = 3
"""With more VMs than this, only what ends a request is shown."""


@dataclass
class Tour:
    """What is shown of one type."""

    lab: Lab
    type: NetworkType
    plan: Plan
    keep: bool
    times: dict[str, VmTimes] = field(default_factory=dict)
    pings: int = 0
    """That were answered."""
    _began: float = 0.0
    _quiet: bool = True
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_PINGS))

    async def run(self) -> None:
        """Show all of it. LabError when something does not come, does not answer or does not go."""
        async with connect(self.lab.nats_url, self._show) as outside:
            await self._apply(outside)
            before = await traces.settled(self.lab, outside)
            await self._create(outside)
            await self._reach_each_other()
            self._tell_port_security()
            if not self.keep:
                await self._delete(outside)
                await self._prove_nothing_left(outside, before)
        console.print()
        console.print(demo_report.table(list(self.times.values())))

    async def _apply(self, outside: LabClient) -> None:
        _title(f"{self.type}: a cluster is applied")
        example = Path(os.environ.get("VMFABRIC_ROOT", ".")) / _EXAMPLES / f"{self.type}.yaml"
        for document in read(example.read_text(), origin=str(example)):
            await apply_one(outside.client, document)
        reflectors = self.lab.topology.reflectors if self.type.is_announced else ()
        with step(f"nodes joined{', each with BGP sessions to both reflectors' if reflectors else ''}"):
            for node in self.plan.nodes:
                await outside.wait_for(NodeJoined, node=node.name)
                for reflector in reflectors:
                    await outside.wait_for(BgpSessionUp, node=node.name, reflector=reflector.ipv4)

    async def _create(self, outside: LabClient) -> None:
        _title(f"{self.type}: {_vms(len(self.plan.vms))} requested")
        with self._live():
            for name, node in self.plan.vms.items():
                self.times[name] = VmTimes(name, self.plan.router, requested=time.monotonic())
                body = {"cluster": self.plan.cluster, "vm": name, **_SIZE} | ({"node": node} if node else {})
                await outside.publish("vm.requested", body)
            await asyncio.gather(*(self._follow(outside, times) for times in self.times.values()))
        for family in Family:
            answered = sum(family in times.answered for times in self.times.values())
            console.print(
                f"[green]✓[/] {answered} of {len(self.times)} answer a ping from {self.plan.router} over {family}"
            )

    async def _follow(self, outside: LabClient, times: VmTimes) -> None:
        cluster, vm = self.plan.cluster, times.vm
        times.ready = await outside.wait_for(VmReady, unless=VmFailed, seconds=_READY_SECONDS, cluster=cluster, vm=vm)
        times.ready_at = outside.when(VmReady, cluster=cluster, vm=vm)
        await outside.wait_for(GuestRunning, cluster=cluster, vm=vm, node=times.ready.node, seconds=_READY_SECONDS)
        times.running_at = outside.when(GuestRunning, cluster=cluster, vm=vm)
        for allocated in times.ready.addresses:
            times.answered[allocated.family] = await self._first_answer(self.plan.router, allocated.address)

    async def _first_answer(self, source: str, address: HostAddress) -> float:
        deadline = time.monotonic() + _PING_SECONDS
        async with self._slots:
            while not await asyncio.to_thread(answers_ping, self.lab, source, address):
                if time.monotonic() > deadline:
                    raise LabError(f"{address} does not answer a ping from {source} in {_PING_SECONDS:.0f} s")
            self.pings += 1
            return time.monotonic()

    async def _reach_each_other(self) -> None:
        for source, target in self.plan.pairs:
            there = self.times[target].ready
            for allocated in there.addresses if there else ():
                await self._first_answer(self._guest(source), allocated.address)
        for vm in self.times:
            for gateway in self.plan.gateways:
                await self._first_answer(self._guest(vm), gateway)
        if self.plan.pairs:
            pairs = ", ".join(f"{self._where(source)} → {self._where(target)}" for source, target in self.plan.pairs)
            console.print(f"[green]✓[/] VMs reach each other in both families: {pairs}", soft_wrap=True)
        if self.plan.gateways:
            console.print(f"[green]✓[/] each VM reaches its gateway, {' and '.join(map(str, self.plan.gateways))}")

    def _tell_port_security(self) -> None:
        if self.type is not NetworkType.ROUTING:
            return
        refused = refused_frames(self.lab.topology)
        if any(refused.values()):
            raise LabError(f"the provider's switch has refused frames with a foreign MAC address: {refused}")
        console.print("[green]✓[/] the provider's port security has refused 0 frames")

    async def _delete(self, outside: LabClient) -> None:
        _title(f"{self.type}: {_vms(len(self.plan.vms))} deleted")
        cluster = self.plan.cluster
        with self._live():
            for times in self.times.values():
                times.delete_requested = time.monotonic()
                await outside.publish("vm.delete.requested", {"cluster": cluster, "vm": times.vm})
            for times in self.times.values():
                await outside.wait_for(VmDeleted, cluster=cluster, vm=times.vm, seconds=_READY_SECONDS)
                times.deleted_at = outside.when(VmDeleted, cluster=cluster, vm=times.vm)

    async def _prove_nothing_left(self, outside: LabClient, before: traces.Traces) -> None:
        left = await traces.left_over(self.lab, outside, before)
        if left:
            raise LabError("the deleted VMs have left something behind:\n  " + "\n  ".join(left))
        console.print("[green]✓[/] nothing of them is left: links, routes, rules, FRR, keys, addresses, guests")

    def _guest(self, vm: str) -> str:
        return f"{self.plan.cluster}.{vm}"

    def _where(self, vm: str) -> str:
        node = self.plan.vms[vm]
        return f"{vm} on {node}" if node else vm

    @contextmanager
    def _live(self) -> Iterator[None]:
        self._began, self._quiet = time.monotonic(), False
        try:
            yield
        finally:
            self._quiet = True

    def _show(self, heard: Heard) -> None:
        ends_a_request = isinstance(heard.event, VmReady | VmDeleted | VmFailed)
        if not self._quiet and (len(self.plan.vms) <= _SHOW_ALL or ends_a_request):
            console.print(line(f"{heard.at - self._began:+7.3f} s", heard.subject, heard.body), soft_wrap=True)


def _title(text: str) -> None:
    console.print(f"\n[bold]{text}[/]")


def _vms(count: int) -> str:
    return "a VM is" if count == 1 else f"{count} VMs are"
