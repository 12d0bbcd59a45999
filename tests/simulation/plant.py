"""What operators have applied: one cluster, a pool with room, and one that is soon exhausted."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_network

from simulation.workload import LABELS, MAIN_POOL, TINY_POOL
from vmfabric.contract.addresses import Family, HostAddress
from vmfabric.contract.bgp import Bgp, Reflector
from vmfabric.contract.cluster import Capacity, ClusterSpec, NetworkType, NodeSpec, Reserve
from vmfabric.contract.names import ClusterName, NodeName
from vmfabric.contract.pool import NetworkSpec, PoolSpec

CLUSTER: ClusterName = "sim"
REFLECTORS = (IPv4Address("192.0.2.251"), IPv4Address("192.0.2.252"))

FENCE = "ipmi"

_AS = 64512
_MAX_VMS = 6
_RESERVE = Reserve(memory_mb=1024)
_NETWORKS = {"fabric4": "198.51.100.0/24", "fabric6": "2001:db8::/48"}


@dataclass(frozen=True)
class Plant:
    """All of it."""

    cluster: ClusterSpec
    nodes: tuple[NodeSpec, ...]
    networks: tuple[NetworkSpec, ...]
    pools: tuple[PoolSpec, ...]


def plant(nodes: Mapping[NodeName, HostAddress], *, cpu: int) -> Plant:
    """For these nodes and their addresses; the first two are alike, a third lacks a label."""
    return Plant(
        cluster=ClusterSpec(
            name=CLUSTER,
            type=NetworkType.IP_FABRIC,
            trusted_fences=(FENCE,),
            bgp=Bgp(
                asn=_AS,
                reflectors=tuple(Reflector(address=address, asn=_AS) for address in REFLECTORS),
                community={Family.IPV4: f"{_AS}:4", Family.IPV6: f"{_AS}:6"},
            ),
        ),
        nodes=tuple(
            NodeSpec(
                name=name,
                cluster=CLUSTER,
                address=address,
                capacity=Capacity(cpu=cpu, memory_mb=4096, disk_gb=100),
                reserve=_RESERVE,
                labels=LABELS if name in {"n1", "n2"} else {},
                max_vms=_MAX_VMS,
            )
            for name, address in nodes.items()
        ),
        networks=tuple(NetworkSpec(name=name, prefix=ip_network(text)) for name, text in _NETWORKS.items()),
        pools=(
            _pool(MAIN_POOL, ("198.51.100.0/29", "2001:db8::/124"), quarantine_seconds=8),
            _pool(TINY_POOL, ("198.51.100.128/31",), quarantine_seconds=15),
        ),
    )


def _pool(name: str, blocks: tuple[str, ...], *, quarantine_seconds: int) -> PoolSpec:
    return PoolSpec(
        name=name, cluster=CLUSTER, blocks=tuple(map(ip_network, blocks)), quarantine_seconds=quarantine_seconds
    )
