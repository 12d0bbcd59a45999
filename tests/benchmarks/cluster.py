"""The cluster of the example in a lab of the benchmarks' own, as operators and platform services see it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from vmfabric.cli.documents import read
from vmfabric.contract.addresses import Family, HostAddress
from vmfabric.contract.admin import Applied, VmState
from vmfabric.contract.node import NodeJoined
from vmfabric.contract.route import BgpSessionUp
from vmfabric.contract.vm import VmDeleted, VmFailed, VmReady
from vmfabric.lab.client import LabClient, connect
from vmfabric.lab.lab import Lab

NAME = "msk"
SIZE = {"cpu": 1, "memory_mb": 64, "disk_gb": 1}
SECONDS = 60.0
_EXAMPLE = Path(__file__).parents[2] / "deploy" / "examples" / "ip-fabric.yaml"


@asynccontextmanager
async def applied(lab: Lab, **changes: Any) -> AsyncIterator[LabClient]:
    """With these values of the cluster; returns when every node is heard and has its sessions."""
    async with connect(lab.nats_url) as outside:
        await apply(outside, **changes)
        for node in lab.topology.nodes:
            await outside.wait_for(NodeJoined, node=node.name, seconds=SECONDS)
            for reflector in lab.topology.reflectors:
                await outside.wait_for(BgpSessionUp, node=node.name, reflector=reflector.ipv4, seconds=SECONDS)
        yield outside


async def apply(outside: LabClient, **changes: Any) -> None:
    """The example; no address is given twice in a run."""
    own = {"cluster": changes, "pool": {"quarantine_seconds": 3600}}
    for document in read(_EXAMPLE.read_text(), origin=str(_EXAMPLE)):
        spec = {**document.spec, **own.get(document.kind, {})}
        await outside.ask(f"{document.kind}.apply", {"spec": spec}, Applied)


def spec(kind: str) -> dict[str, Any]:
    """Of the example's first document of a kind."""
    return next(dict(it.spec) for it in read(_EXAMPLE.read_text(), origin=str(_EXAMPLE)) if it.kind == kind)


async def made(outside: LabClient, vm: str, **changes: Any) -> VmReady:
    """A VM that is ready."""
    await outside.publish("vm.requested", {"cluster": NAME, "vm": vm, **SIZE, **changes})
    return await outside.wait_for(VmReady, vm=vm, unless=VmFailed, seconds=SECONDS)


async def found(outside: LabClient, vm: str) -> HostAddress:
    """The IPv4 address of a VM that is there."""
    state = await outside.ask("vm.get", {"cluster": NAME, "vm": vm}, VmState)
    return next(it.address for it in state.addresses if it.family is Family.IPV4)


async def removed(outside: LabClient, vm: str) -> None:
    """It is gone."""
    await outside.publish("vm.delete.requested", {"cluster": NAME, "vm": vm})
    await outside.wait_for(VmDeleted, vm=vm, seconds=SECONDS)
