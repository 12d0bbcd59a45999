"""Clusters and nodes as operators apply them."""

from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from vmfabric.contract.addresses import Community, Family, HostAddress, Mac
from vmfabric.contract.model import Request
from vmfabric.contract.names import ClusterName, LabelText, NodeName, ResourceName
from vmfabric.contract.patterns import PASSWORD


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
    """The gateway that every VM of the cluster sees: the same addresses and MAC on all interfaces of all nodes."""

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


class Reflector(Request):
    """A BGP route reflector (RFC 4456). The fabric is iBGP: its AS is the cluster's."""

    address: HostAddress
    asn: Annotated[int, Field(ge=1, le=4294967294)]


class BgpTimers(Request):
    """Seconds."""

    keepalive: Annotated[int, Field(ge=1, le=65535)] = 3
    hold: Annotated[int, Field(ge=3, le=65535)] = 9
    connect: Annotated[int, Field(ge=1, le=65535)] = 1

    @model_validator(mode="after")
    def _hold_is_long_enough(self) -> "BgpTimers":
        if self.hold < 3 * self.keepalive:
            raise ValueError(f"hold {self.hold} s must be at least three keepalives of {self.keepalive} s")
        return self


class Bgp(Request):
    """How the nodes of a cluster announce."""

    asn: Annotated[int, Field(ge=1, le=4294967294)]
    reflectors: Annotated[tuple[Reflector, ...], Field(min_length=1, max_length=16)]
    community: dict[Family, Community]
    """One community for each family that is announced."""
    timers: BgpTimers = BgpTimers()
    password: Annotated[str, StringConstraints(strict=True, pattern=PASSWORD)] | None = Field(
        default=None, repr=False
    )
    """TCP MD5 password (RFC 2385): 1 to 80 printable ASCII characters without spaces."""
    bfd: bool = True
    """Watch the sessions with BFD, three packets every 300 ms (RFC 5880); no effect with a reflector that does not.
    docs/failures.md says what it is good for."""

    @model_validator(mode="after")
    def _ibgp(self) -> "Bgp":
        for reflector in self.reflectors:
            if reflector.asn != self.asn:
                raise ValueError(
                    f"reflector {reflector.address} is in AS {reflector.asn}, the cluster in AS {self.asn}: "
                    "an ip-fabric is iBGP, both must be the same"
                )
        reserved = [it for it in self.community.values() if it.count(":") == 1 and it.split(":")[0] in {"0", "65535"}]
        if reserved:
            raise ValueError(f"community {reserved[0]} is reserved, like all of AS 0 and of AS 65535 (RFC 1997)")
        missing = [family for family in Family if family not in self.community]
        if missing:
            raise ValueError(f"community lacks {', '.join(missing)}: routes are announced with one for each family")
        addresses = [reflector.address for reflector in self.reflectors]
        if len(set(addresses)) != len(addresses):
            raise ValueError("the same reflector is named twice")
        return self


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
    """A cluster: nodes that share a network type and a way to announce."""

    name: ClusterName
    type: Literal["ip-fabric"]
    virtualization: Virtualization = Virtualization.KVM
    gateway: Gateway = Gateway()
    bgp: Bgp
    mtu: Annotated[int, Field(ge=1280, le=65535)] = 1500
    placement: Placement = Placement()
    trusted_fences: Annotated[tuple[ResourceName, ...], Field(max_length=16)] = ()
    """Whose `node.fenced` is believed: a lost node that one of them has fenced is evacuated without an operator."""


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


class NodeSpec(Request):
    """A hypervisor."""

    name: NodeName
    cluster: ClusterName
    address: HostAddress
    """Its own IPv4 address in the fabric: router id and source of its BGP sessions."""
    capacity: Capacity
    reserve: Reserve = Reserve()
    """Taken off the capacity before overcommit."""
    labels: Annotated[dict[LabelText, LabelText], Field(max_length=64)] = Field(default_factory=dict)
    """What VMs may require of their node."""
    max_vms: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """No more VMs than this, those on their way counted."""
    virtualization: Virtualization | None = None
    """None: the cluster's. A node of another kind takes no VMs of the cluster."""

    @model_validator(mode="after")
    def _ipv4(self) -> "NodeSpec":
        if Family.of(self.address) is not Family.IPV4:
            raise ValueError(f"address {self.address} must be IPv4: it is the BGP router id too")
        return self

    @model_validator(mode="after")
    def _something_is_left(self) -> "NodeSpec":
        for resource, has in dict(self.capacity).items():
            reserved = getattr(self.reserve, resource)
            if reserved >= has:
                raise ValueError(f"reserve.{resource} is {reserved} of {has}: nothing would be left for VMs")
        return self
