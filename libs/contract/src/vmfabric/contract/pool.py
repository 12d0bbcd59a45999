"""Networks and pools as operators apply them."""

from enum import StrEnum
from ipaddress import IPv6Network
from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from vmfabric.contract.addresses import Family, HostAddress, Prefix, lies_inside
from vmfabric.contract.model import Request
from vmfabric.contract.names import ClusterName, NodeName, ResourceName


class NetworkKind(StrEnum):
    """What a network is for."""

    CONTAINER = "container"
    """Holds other networks: what a provider or a registry has given."""
    ACTIVE = "active"
    """Wired: blocks of pools are cut from it."""


class NetworkSpec(Request):
    """A physical network: the space that blocks of pools are cut from, or a container of such networks."""

    name: ResourceName
    prefix: Prefix
    """Containers nest; an active network lies inside containers or in none, and overlaps no other active one."""
    kind: NetworkKind = NetworkKind.ACTIVE
    gateway: HostAddress | None = None
    """The router of an active network, where it has one that VMs should use; never given to a VM."""
    vlan: Annotated[int, Field(ge=1, le=4094)] | None = None
    """The VLAN of an active network, where it has one (IEEE 802.1Q)."""
    segment: bool = False
    """Whether VMs are neighbours in an active network, as in switching clusters and wherever there is a `gateway`,
    which says the same: its own address, which in IPv6 is that of all its routers (RFC 4291), and its broadcast
    address are given to none then. In an ip-fabric, whose networks have no gateway, VMs can have both."""
    note: Annotated[str, Field(max_length=500)] = ""

    @model_validator(mode="after")
    def _gateway_and_vlan(self) -> "NetworkSpec":
        if self.kind is NetworkKind.CONTAINER and (self.gateway is not None or self.vlan is not None or self.segment):
            raise ValueError(
                "a container has no gateway and no VLAN, and is no segment; say that of the active networks inside"
            )
        if self.gateway is not None and self.gateway not in self.prefix:
            raise ValueError(f"gateway {self.gateway} does not lie in {self.prefix}")
        return self


class AddressRange(Request):
    """Addresses from `first` to `last`, both included."""

    first: HostAddress
    last: HostAddress

    @model_validator(mode="after")
    def _ascending(self) -> "AddressRange":
        if self.first.version != self.last.version:
            raise ValueError(f"{self.first} and {self.last} are of two families")
        if int(self.first) > int(self.last):
            raise ValueError(f"{self.first} comes after {self.last}; give the lower one as `first`")
        return self

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return Family.of(self.first)


class PoolSpec(Request):
    """Blocks of networks, combined for one cluster."""

    name: ResourceName
    cluster: ClusterName
    blocks: Annotated[tuple[Prefix, ...], Field(min_length=1, max_length=256)]
    """Each inside an active network. Network, broadcast, .0 and .255 addresses are usable where an ip-fabric routes
    hosts; in a network that is a `segment` or has a `gateway` its own and its broadcast address are not given.
    Addresses of nodes and of other hosts are nobody's here: exclude them."""
    exclude: Annotated[tuple[Prefix, ...], Field(max_length=1024)] = ()
    """Never given to a VM."""
    ranges: Annotated[
        dict[NodeName, Annotated[tuple[AddressRange, ...], Field(min_length=1, max_length=64)]],
        Field(max_length=4096),
    ] = Field(default_factory=dict)
    """What the VMs of each node may have, each range inside a block. Where it is given, a VM gets only addresses of
    the ranges of its node; without it, every VM may have every address of the pool. Where VMs get whole prefixes, a
    range goes from the one that has `first` to the one that has `last`."""
    quarantine_seconds: Annotated[int, Field(ge=0, le=365 * 24 * 3600)] = 300
    """How long a released address rests before it may be given again."""
    ipv6_length: Annotated[int, Field(ge=48, le=128)] = 128
    """How much a VM gets of an IPv6 block: with 128 one address, with 64 a whole /64. The address that its guest
    configures is then the first one behind the prefix (`::1`), and all others of it are routed there too. Where VMs
    are in one segment there is nobody to route them."""

    @model_validator(mode="after")
    def _lengths(self) -> "PoolSpec":
        for block in self.blocks:
            if isinstance(block, IPv6Network) and block.prefixlen > self.ipv6_length:
                raise ValueError(f"block {block} is smaller than the /{self.ipv6_length} that each VM should get")
        return self

    @model_validator(mode="after")
    def _blocks(self) -> "PoolSpec":
        for index, block in enumerate(self.blocks):
            for other in self.blocks[:index]:
                if block.version == other.version and block.overlaps(other):
                    raise ValueError(f"blocks {other} and {block} overlap")
        for excluded in self.exclude:
            if not any(lies_inside(excluded, block) for block in self.blocks):
                raise ValueError(f"{excluded} is excluded, but lies in no block of the pool")
        return self

    @model_validator(mode="after")
    def _ranges(self) -> "PoolSpec":
        found = [(each, node) for node, ranges in self.ranges.items() for each in ranges]
        for each, node in found:
            if not any(each.first in block and each.last in block for block in self.blocks):
                raise ValueError(f"range {each.first} to {each.last} of node {node} lies in no block of the pool")
        found.sort(key=lambda pair: (pair[0].first.version, int(pair[0].first)))
        for (lower, node), (upper, other) in pairwise(found):
            bits = 128 - self.ipv6_length if lower.family is Family.IPV6 else 0
            if lower.family is upper.family and int(upper.first) >> bits <= int(lower.last) >> bits:
                raise ValueError(f"ranges of {node} and {other} overlap at {upper.first}")
        return self
