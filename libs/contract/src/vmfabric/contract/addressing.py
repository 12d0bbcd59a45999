"""Administration of addresses: how full pools are, and where a VM can still have one.

| subject | request | answer | service |
| --- | --- | --- | --- |
| `pool.free` | ListFree | FreeAddresses | ipam |
"""

from vmfabric.contract.addresses import Family
from vmfabric.contract.model import Part, Request
from vmfabric.contract.names import ClusterName, NodeName, ResourceName


class ListFree(Request):
    """Where can a VM of this cluster have an address?"""

    cluster: ClusterName


class FreeInPool(Part):
    """How many addresses a pool can give now."""

    pool: ResourceName
    free: dict[Family, int]
    """Of each family that the pool has."""
    nodes: dict[NodeName, dict[Family, int]] | None = None
    """The same for the VMs of each node; None where every node's VMs may have every address of the pool."""


class FreeAddresses(Part):
    """The pools of a cluster, in the order in which they are asked."""

    cluster: ClusterName
    pools: tuple[FreeInPool, ...]
