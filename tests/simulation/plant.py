"""What operators have applied: one cluster of one of the three types, a pool with room, and one that is soon
exhausted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network

from simulation.workload import LABELS, MAIN_POOL, TINY_POOL
from vmfabric.contract.addresses import Family, HostAddress
from vmfabric.contract.bgp import Bgp, Reflector
from vmfabric.contract.cluster import Bridge, Capacity, ClusterSpec, NetworkType, NodeSpec, Reserve
from vmfabric.contract.names import ClusterName, InterfaceName, NodeName, VmName
from vmfabric.contract.pool import AddressRange, NetworkSpec, PoolSpec
from vmfabric.node_agent.domain.naming import interface_name, port_name

CLUSTER: ClusterName = "sim"
REFLECTORS = (IPv4Address("192.0.2.251"), IPv4Address("192.0.2.252"))

FENCE = "ipmi"

_AS = 64512
_MAX_VMS = 6
_RESERVE = Reserve(memory_mb=1024)
_NETWORKS = {"198.51.100.0/24": "198.51.100.254", "2001:db8::/48": "2001:db8::ffff"}
"""With the gateway that switched VMs have."""
BRIDGE: InterfaceName = "vmbr0"
UPLINK: InterfaceName = "uplink"
_BLOCKS = {MAIN_POOL: ("198.51.100.0/29", "2001:db8::/124"), TINY_POOL: ("198.51.100.128/31",)}
_WIDE = ip_network("2001:db8::/60")
_QUARANTINES = {MAIN_POOL: 8, TINY_POOL: 15}
_RANGES: Mapping[NodeName, Mapping[str, tuple[str, ...]]] = {
    "n1": {MAIN_POOL: ("198.51.100.0-198.51.100.3", "2001:db8::1-2001:db8::2"), TINY_POOL: ("198.51.100.128",)},
    "n2": {MAIN_POOL: ("198.51.100.4-198.51.100.5", "2001:db8::5-2001:db8::6"), TINY_POOL: ("198.51.100.129",)},
    "n3": {MAIN_POOL: ("198.51.100.6-198.51.100.7",)},
}
_SENT: Mapping[NodeName, tuple[str, ...]] = {
    "n1": ("198.51.100.0/30", "198.51.100.128/32"),
    "n2": ("198.51.100.4/31", "198.51.100.129/32"),
    "n3": ("198.51.100.6/31",),
}
"""What the provider of a routing cluster sends to a node."""
_GATEWAYS6: Mapping[NodeName, str] = {"n1": "2001:db8::3/126", "n2": "2001:db8::7/126"}


@dataclass(frozen=True)
class Plant:
    """All of it."""

    cluster: ClusterSpec
    nodes: tuple[NodeSpec, ...]
    networks: tuple[NetworkSpec, ...]
    pools: tuple[PoolSpec, ...]

    @property
    def type(self) -> NetworkType:
        """Of its cluster."""
        return self.cluster.type

    def link_of(self, vm: VmName) -> InterfaceName:
        """The host's side of a VM's link."""
        name = interface_name if self.type is NetworkType.IP_FABRIC else port_name
        return name(self.cluster.name, vm)

    def routed_to(self, vm: VmName) -> InterfaceName | None:
        """The link that the VM's addresses are routed to, if they are."""
        match self.type:
            case NetworkType.IP_FABRIC:
                return self.link_of(vm)
            case NetworkType.SWITCHING:
                return None
            case NetworkType.ROUTING:
                return BRIDGE


def plant(nodes: Mapping[NodeName, HostAddress], kind: NetworkType, *, cpu: int, has_prefixes: bool = False) -> Plant:
    """For these nodes and their addresses; the first two are alike, a third lacks a label.

    With `has_prefixes` each VM has a whole one of IPv6.
    """
    pools = tuple(_pool(name, nodes if kind is NetworkType.ROUTING else ()) for name in _BLOCKS)
    return Plant(
        cluster=_cluster(kind),
        nodes=tuple(_node(name, address, kind, cpu=cpu) for name, address in nodes.items()),
        networks=tuple(_network(number, prefix, kind) for number, prefix in enumerate(_NETWORKS)),
        pools=tuple(map(_of_prefixes, pools)) if has_prefixes else pools,
    )


def _cluster(kind: NetworkType) -> ClusterSpec:
    bgp = Bgp(
        asn=_AS,
        reflectors=tuple(Reflector(address=address, asn=_AS) for address in REFLECTORS),
        community={Family.IPV4: f"{_AS}:4", Family.IPV6: f"{_AS}:6"},
    )
    return ClusterSpec(
        name=CLUSTER,
        type=kind,
        trusted_fences=(FENCE,),
        bgp=bgp if kind.is_announced else None,
        bridge=Bridge(autosetup=kind is not NetworkType.SWITCHING),
    )


def _node(name: NodeName, address: HostAddress, kind: NetworkType, *, cpu: int) -> NodeSpec:
    is_routing = kind is NetworkType.ROUTING
    gateway = _GATEWAYS6.get(name) if is_routing else None
    return NodeSpec(
        name=name,
        cluster=CLUSTER,
        address=address,
        uplink=UPLINK if is_routing else None,
        ipv6=None if gateway is None else ip_interface(gateway),
        subnets=tuple(map(ip_network, _SENT[name])) if is_routing else (),
        capacity=Capacity(cpu=cpu, memory_mb=4096, disk_gb=100),
        reserve=_RESERVE,
        labels=LABELS if name in {"n1", "n2"} else {},
        max_vms=_MAX_VMS,
    )


def _network(number: int, prefix: str, kind: NetworkType) -> NetworkSpec:
    is_segment = kind is NetworkType.SWITCHING
    gateway = ip_address(_NETWORKS[prefix]) if is_segment else None
    return NetworkSpec(name=f"net{number}", prefix=ip_network(prefix), gateway=gateway, segment=is_segment)


def _pool(name: str, nodes: Iterable[NodeName]) -> PoolSpec:
    return PoolSpec(
        name=name,
        cluster=CLUSTER,
        blocks=tuple(map(ip_network, _BLOCKS[name])),
        ranges={node: tuple(map(_range, _RANGES[node][name])) for node in nodes if name in _RANGES[node]},
        quarantine_seconds=_QUARANTINES[name],
    )


def _of_prefixes(pool: PoolSpec) -> PoolSpec:
    """With as many prefixes as it has IPv6 addresses."""
    if all(block.version == 4 for block in pool.blocks):
        return pool
    blocks = tuple(_WIDE if block.version == 6 else block for block in pool.blocks)
    return pool.model_copy(update={"blocks": blocks, "ipv6_length": _WIDE.prefixlen + 4})


def _range(text: str) -> AddressRange:
    first, _, last = text.partition("-")
    return AddressRange(first=ip_address(first), last=ip_address(last or first))
