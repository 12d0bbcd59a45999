"""Short words for what tests need."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from vmfabric.contract.addresses import Family
from vmfabric.contract.bgp import Bgp, Reflector
from vmfabric.contract.cluster import Capacity, ClusterSpec, NetworkType, NodeSpec, Overcommit, Placement
from vmfabric.contract.errors import Code
from vmfabric.contract.iface import GuestNetwork, IfaceReady, IfaceRemoved
from vmfabric.contract.ip import AllocatedAddress, IpAllocated, IpRefused, IpReleased
from vmfabric.contract.route import RouteAnnounced, RouteWithdrawn
from vmfabric.contract.vm import VmRequested
from vmfabric.scheduler.domain.lifecycle import VmFact

START = datetime(2026, 1, 1, tzinfo=UTC)
ADDRESS = ip_address("198.51.100.7")
MAC = "02:00:00:00:00:01"


class HandClock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self._now = START
        self._moment = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._moment

    def pass_(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._moment += seconds

    def is_set(self, seconds: float) -> None:
        """Somebody sets the wall clock, so much forward or back."""
        self._now += timedelta(seconds=seconds)


def a_vm_request(vm: str = "vm1", **changes: Any) -> VmRequested:
    return VmRequested(**{"cluster": "msk", "vm": vm, "cpu": 2, "memory_mb": 2048, "disk_gb": 20, **changes})


def a_cluster_spec(**changes: Any) -> ClusterSpec:
    bgp = Bgp(
        asn=65000,
        reflectors=(Reflector(address=ip_address("10.0.0.11"), asn=65000),),
        community={Family.IPV4: "65000:100", Family.IPV6: "65000:600"},
    )
    placement = Placement(overcommit=Overcommit(cpu=1.0))
    return ClusterSpec(
        **{"name": "msk", "type": NetworkType.IP_FABRIC, "bgp": bgp, "placement": placement, **changes}
    )


def another_type(kind: NetworkType, **changes: Any) -> ClusterSpec:
    """A cluster that announces nothing."""
    return a_cluster_spec(type=kind, bgp=None, **changes)


def a_node_spec(name: str = "n1", number: int = 1, cpu: int = 16, **changes: Any) -> NodeSpec:
    return NodeSpec(
        name=name,
        cluster="msk",
        address=ip_address(f"10.0.0.{number}"),
        capacity=Capacity(cpu=cpu, memory_mb=65536, disk_gb=1000),
        **changes,
    )


def the_facts(generation: int, vm: str = "vm1", node: str = "n1") -> dict[str, VmFact]:
    """One of each kind that is said of a VM, by subject."""
    who: dict[str, Any] = {"cluster": "msk", "vm": vm, "node": node, "generation": generation}
    guest = GuestNetwork(mac=MAC, mtu=1500, addresses=())
    facts: list[VmFact] = [
        IpAllocated(**who, addresses=(AllocatedAddress(address=ADDRESS, pool="public"),)),
        IpRefused(cluster="msk", vm=vm, generation=generation, code=Code.POOL_EXHAUSTED, message="the pool is full"),
        IpReleased(**who, addresses=(ADDRESS,)),
        IfaceReady(**who, interface="vm1_net0", guest=guest),
        IfaceRemoved(**who),
        RouteAnnounced(**who, routes=()),
        RouteWithdrawn(**who),
    ]
    return {fact.subject_template.stem: fact for fact in facts}
