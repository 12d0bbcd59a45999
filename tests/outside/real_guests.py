"""Tests that are the hypervisor themselves, and start real guests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from outside.cluster import Cluster
from vmfabric.lab import faults

BOOT_SECONDS = 60.0
"""4 on an idle machine."""


@asynccontextmanager
async def left_to_qemu(cluster: Cluster, vm: str) -> AsyncIterator[None]:
    """The lab's hypervisors, which give every VM a namespace, are away; when they are back the VM is gone."""
    nodes = [node.name for node in cluster.lab.topology.nodes]
    for node in nodes:
        faults.kill_service(cluster.lab, "hypervisor", node)
    try:
        yield
    finally:
        try:
            await cluster.delete(vm)
        finally:
            for node in nodes:
                await asyncio.to_thread(faults.start_service, cluster.lab, "hypervisor", node)
