"""Clusters and nodes as operators apply them."""

from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from pydantic import Field, model_validator

from vmfabric.contract.addresses import Family, HostAddress, Mac, MaskedAddress, Prefix
from vmfabric.contract.bgp import Bgp
from vmfabric.contract.model import Request
from vmfabric.contract.names import ClusterName, InterfaceName, LabelText, NodeName, ResourceName


class NetworkType(StrEnum):
    """How the VMs of a cluster reach the world (docs/network-types.md)."""

    IP_FABRIC = "ip-fabric"
    """Each address is routed to its VM's own link, and announced by BGP."""
    SWITCHING = "switching"
    """VMs are in their physical network, behind a bridge that the node's uplink is a port of."""
    ROUTING = "routing"
    """The provider sends the addresses of a node to that node, which routes them into a bridge without the uplink."""

    @property
    def is_announced(self) -> bool:
        """Whether its VMs have BGP routes."""
        return self is NetworkType.IP_FABRIC

    @property
    def can_migrate(self) -> bool:
        """Whether a VM keeps its addresses on another node."""
        return self is not NetworkType.ROUTING


class Virtualization(StrEnum):
    """What runs the guests of a cluster, which decides how they are wired."""

    KVM = "kvm"
    """A TAP for each VM."""
    LXD = "lxd"
    """A veth pair for each VM."""


class Policy(StrEnum):
    """Which of the nodes that fit is taken."""

    SPREAD = "spread"
    """The one with the most room."""
    PACK = "pack"
    """The one with the least room that is enough."""


class Gateway(Request):
    """The gateway that every VM of an ip-fabric cluster sees: the same addresses and MAC on all interfaces of all
    nodes.
    """

    ipv4: Annotated[HostAddress, Field(description="any IPv4 address that no node uses itself")] = IPv4Address(
        "169.254.0.1"
    )
    ipv6: HostAddress = IPv6Address("fe80::1")
    mac: Mac = "02:00:5e:00:00:01"

    @model_validator(mode="after")
    def _families(self) -> "Gateway":
        for family, address in ((Family.IPV4, self.ipv4), (Family.IPV6, self.ipv6)):
            if Family.of(address) is not family:
                raise ValueError(f"gateway.{family} is {address}, which is not an {family} address")
            if address.is_unspecified or address.is_multicast or address.is_loopback:
                raise ValueError(f"gateway.{family} is {address}, which no interface can have")
        return self

    def of(self, family: Family) -> HostAddress:
        """The gateway address of a family."""
        return self.ipv4 if family is Family.IPV4 else self.ipv6


class Bridge(Request):
    """The bridge that the VMs of a node are in."""

    name: InterfaceName = "vmbr0"
    autosetup: bool = True
    """Switching: make the bridge, and move the node's uplink, with its addresses and routes, into it. False: it is
    the operator's own, made before the first VM comes; a bridge over a bond or a VLAN, say. Routing: always true."""
    confirm_seconds: Annotated[int, Field(ge=1, le=300)] = 10
    """Switching: how long the node's gateway may be silent after the move before all of it is taken back."""


class Overcommit(Request):
    """How many times what a node has may be promised to VMs."""

    cpu: Annotated[float, Field(gt=0, le=100)] = 4.0
    memory: Annotated[float, Field(gt=0, le=100)] = 1.0
    disk: Annotated[float, Field(gt=0, le=100)] = 1.0


class Weights(Request):
    """How much each part of a node's weight counts; 0 leaves it out."""

    room: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """The share of its scarcest resource that would be left: from 0 to 1 with `spread`, from 0 to -1 with `pack`."""
    groups: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Each VM there of a group to which the new one has a soft rule: 1 for affinity, -1 for anti-affinity. So as long
    as this counts as much as room, soft rules come before it."""


class Placement(Request):
    """How nodes are chosen."""

    policy: Policy = Policy.SPREAD
    overcommit: Overcommit = Overcommit()
    weights: Weights = Weights()
    headroom_nodes: Annotated[int, Field(ge=0, le=64)] = 0
    """So many nodes may be lost, whichever they are, and the others have room for all VMs: of CPU, of memory and of
    disk, what all VMs of the cluster take is never made more, by a new VM, than what the nodes that are heard and not
    drained have without the largest so many of them. These are sums: that each VM then finds one node in which it
    fits, with its labels and groups, is not promised."""


class ClusterSpec(Request):
    """A cluster: nodes that share a network type."""

    name: ClusterName
    type: NetworkType
    virtualization: Virtualization = Virtualization.KVM
    gateway: Gateway = Gateway()
    """Of ip-fabric. In the other types it is the network's own, or the node."""
    bgp: Bgp | None = None
    """Of ip-fabric, where it cannot be left out."""
    bridge: Bridge = Bridge()
    """Of switching and of routing."""
    mtu: Annotated[int, Field(ge=1280, le=65535)] = 1500
    nameservers: Annotated[tuple[HostAddress, ...], Field(max_length=8)] = ()
    """What new guests are told to ask for names; guests that are there keep what they were told."""
    placement: Placement = Placement()
    trusted_fences: Annotated[tuple[ResourceName, ...], Field(max_length=16)] = ()
    """Whose `node.fenced` is believed: a lost node that one of them has fenced is evacuated without an operator."""

    @model_validator(mode="after")
    def _of_its_type(self) -> "ClusterSpec":
        is_fabric = self.type is NetworkType.IP_FABRIC
        of_other_types = (
            {"bridge": self.bridge != Bridge()}
            if is_fabric
            else {
                "bgp": self.bgp is not None,
                "gateway": self.gateway != Gateway(),
            }
        )
        foreign = [name for name, is_given in of_other_types.items() if is_given]
        if foreign:
            raise ValueError(f"{' and '.join(foreign)} say nothing in a cluster of type {self.type}; leave them out")
        if is_fabric and self.bgp is None:
            raise ValueError("bgp is missing: an ip-fabric cluster announces its VMs to route reflectors")
        if self.type is NetworkType.ROUTING and not self.bridge.autosetup:
            raise ValueError("bridge.autosetup is false, but the bridge of a routing cluster is vmfabric's own")
        return self


class Capacity(Request):
    """What a node has for VMs."""

    cpu: Annotated[int, Field(ge=1, le=65536)]
    """Threads."""
    memory_mb: Annotated[int, Field(ge=1)]
    """MiB."""
    disk_gb: Annotated[int, Field(ge=1)]
    """GiB."""


class Reserve(Request):
    """What of a node no VM gets, for the node itself."""

    cpu: Annotated[int, Field(ge=0)] = 0
    """Threads."""
    memory_mb: Annotated[int, Field(ge=0)] = 0
    """MiB."""
    disk_gb: Annotated[int, Field(ge=0)] = 0
    """GiB."""


class Upstream(StrEnum):
    """How the provider of a routing cluster sends packets for VMs to their node."""

    ROUTED = "routed"
    """By a route to the node's own address."""
    ON_LINK = "on-link"
    """As to neighbours: it asks for each address (ARP, neighbour discovery), and the node answers for its VMs."""


class NodeSpec(Request):
    """A hypervisor."""

    name: NodeName
    cluster: ClusterName
    address: HostAddress
    """Its own IPv4 address. In ip-fabric: router id and source of its BGP sessions. In routing: the gateway of its
    VMs."""
    uplink: InterfaceName | None = None
    """The NIC that has this address; of switching, where vmfabric makes the bridge, and of routing."""
    ipv6: MaskedAddress | None = None
    """Of routing: the gateway of its VMs with the prefix that they are in, as in 2001:db8:13b:9a7::2/64."""
    subnets: Annotated[tuple[Prefix, ...], Field(max_length=64)] = ()
    """Of routing: what the provider sends to this node, its IPv6 prefix aside. The ranges of pools lie in them."""
    upstream: Upstream = Upstream.ROUTED
    """Of routing."""
    capacity: Capacity
    reserve: Reserve = Reserve()
    """Taken off the capacity before overcommit."""
    labels: Annotated[dict[LabelText, LabelText], Field(max_length=64)] = Field(default_factory=dict)
    """What VMs may require of their node."""
    max_vms: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """No more VMs than this, those on their way counted."""
    virtualization: Virtualization | None = None
    """None: the cluster's. A node of another kind takes no VMs of the cluster."""

    @property
    def sent(self) -> tuple[Prefix, ...]:
        """All that the provider of a routing cluster sends to it for its VMs."""
        return (*self.subnets, *([] if self.ipv6 is None else [self.ipv6.network]))

    @model_validator(mode="after")
    def _ipv4(self) -> "NodeSpec":
        if Family.of(self.address) is not Family.IPV4:
            raise ValueError(f"address {self.address} must be IPv4: it is the BGP router id too")
        return self

    @model_validator(mode="after")
    def _ipv6_gateway(self) -> "NodeSpec":
        if self.ipv6 is not None and (self.ipv6.version != 6 or self.ipv6.ip == self.ipv6.network.network_address):
            raise ValueError(f"ipv6 is {self.ipv6}; write an IPv6 address with its prefix, as in 2001:db8::2/64")
        return self

    @model_validator(mode="after")
    def _something_is_left(self) -> "NodeSpec":
        for resource, has in dict(self.capacity).items():
            reserved = getattr(self.reserve, resource)
            if reserved >= has:
                raise ValueError(f"reserve.{resource} is {reserved} of {has}: nothing would be left for VMs")
        return self
