"""Desired state: values in the KV bucket `desired`. Each key has one writer.

| key | value | writer | readers |
| --- | --- | --- | --- |
| `vm.<cluster>.<node>.<vm>` | DesiredVm | scheduler | node-agent and bgp-announcer of the node |
| `node.<cluster>.<node>` | DesiredNode | scheduler | the same |
| `pools.<cluster>` | DesiredPools | ipam | bgp-announcers of the cluster |
| `scheduler` | HandedOut | scheduler | scheduler, to know whether its database was set back |

A key that is missing says nothing: only a value with `presence: absent` removes a VM from a node. So an empty or
lost bucket never takes anything down, and the key is purged when the node has said that nothing is left.
"""

from collections.abc import Collection
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, TypeAdapter

from vmfabric.contract.addresses import (
    Community,
    Family,
    HostAddress,
    Mac,
    MaskedAddress,
    Prefix,
    host_prefix,
)
from vmfabric.contract.bandwidth import Bandwidth
from vmfabric.contract.bgp import BgpTimers, Reflector
from vmfabric.contract.cluster import Gateway, NetworkType, Upstream, Virtualization
from vmfabric.contract.envelope import Trace
from vmfabric.contract.guest_config import GuestConfigForm
from vmfabric.contract.iface import GuestAddress, of_host
from vmfabric.contract.model import Desired, Part
from vmfabric.contract.names import ClusterName, InterfaceName, NodeName, VmName
from vmfabric.contract.subjects import Template

BUCKET = "desired"

VM_KEY = Template("vm", ("cluster", "node", "vm"))
NODE_KEY = Template("node", ("cluster", "node"))
POOLS_KEY = Template("pools", ("cluster",))
HANDED_OUT_KEY = Template("scheduler")


class Presence(StrEnum):
    """How much of a VM should be on a node. On the way back each word is one step down."""

    PREFERRED = "preferred"
    """As routed, with a higher preference: the guest has just come, and the node that it left still announces it."""
    EVACUATED = "evacuated"
    """As routed, with a higher preference: the node that it was on is lost, and may announce it still."""
    ROUTED = "routed"
    """Wired, with its host routes."""
    FORWARDED = "forwarded"
    """As routed, but what arrives goes on to `toward`: the guest has just left."""
    PREPARED = "prepared"
    """The interface is there, for a guest that is on its way; there have been no host routes."""
    WIRED = "wired"
    """The interface stays, the host routes are gone."""
    ABSENT = "absent"
    """Nothing is left; the node says so and keeps nothing."""

    @property
    def is_announced(self) -> bool:
        """Whether the VM's routes are announced."""
        return self not in {Presence.PREPARED, Presence.WIRED, Presence.ABSENT}


class PointToPoint(Part):
    """A link of the VM's own, with the cluster's gateway on it."""

    type: Literal[NetworkType.IP_FABRIC] = NetworkType.IP_FABRIC
    gateway: Gateway


class Switched(Part):
    """A port of a bridge that the uplink is a port of too."""

    type: Literal[NetworkType.SWITCHING] = NetworkType.SWITCHING
    bridge: InterfaceName
    vlan: Annotated[int, Field(ge=1, le=4094)] | None = None
    """None: what is not tagged on the uplink."""


class Routed(Part):
    """A port of a bridge that the node routes to."""

    type: Literal[NetworkType.ROUTING] = NetworkType.ROUTING
    bridge: InterfaceName


Wiring = Annotated[PointToPoint | Switched | Routed, Field(discriminator="type")]
"""How a VM is connected on its node."""


def _gateway(before: dict[str, Any]) -> Gateway:
    return before.get("gateway") or Gateway()


def _as_hosts(before: dict[str, Any]) -> tuple[GuestAddress, ...]:
    gateway = _gateway(before)
    return tuple(of_host(address, gateway.of(Family.of(address))) for address in before.get("addresses", ()))


def _is_empty(value: Collection[object]) -> bool:
    """What an older version has not is not written where it says nothing: it would be written again everywhere."""
    return not value


class DesiredVm(Desired):
    """One VM on one node."""

    cluster: ClusterName
    node: NodeName
    vm: VmName
    generation: Annotated[int, Field(ge=1)]
    presence: Presence
    mac: Mac
    addresses: tuple[HostAddress, ...]
    gateway: Gateway | None = Field(default=None, exclude=True, repr=False)
    """Where the first version had that of its `wiring`."""
    wiring: Wiring = Field(default_factory=lambda before: PointToPoint(gateway=_gateway(before)))
    guest_addresses: tuple[GuestAddress, ...] = Field(default_factory=_as_hosts)
    """The same addresses as the guest configures them."""
    delegated: Annotated[tuple[Prefix, ...], Field(exclude_if=_is_empty)] = ()
    """Whole prefixes, each around one of the addresses, by which it is reached."""
    toward: tuple[HostAddress, ...] = ()
    """Addresses of the node that the guest has left for, while it is forwarded; one on a segment of this node's is
    the next hop."""
    virtualization: Virtualization
    mtu: Annotated[int, Field(ge=576, le=65535)] = 1500
    nameservers: tuple[HostAddress, ...] = ()
    """For the guest."""
    bandwidth: Bandwidth | None = None
    guest_config: GuestConfigForm = GuestConfigForm.FACTS
    """In which form the node-agent says what the guest has to configure."""
    dhcp: bool = False
    """Whether its DHCP requests are answered."""
    trace_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    """The trace of the request that it follows from; the facts about it belong to the same."""

    def key(self) -> str:
        """Its key in the bucket."""
        return VM_KEY.render({"cluster": self.cluster, "node": self.node, "vm": self.vm})

    @property
    def is_announced(self) -> bool:
        """Whether a bgp-announcer speaks for it: whether its cluster announces at all."""
        return self.wiring.type.is_announced

    def trace(self) -> Trace:
        """The trace that facts about it belong to."""
        return Trace(self.trace_id)

    def prefixes(self) -> tuple[Prefix, ...]:
        """What is routed to the VM: the /32 or /128 of each address, or the prefix that is delegated around it."""
        return tuple(self._routed_with(address) for address in self.addresses)

    def _routed_with(self, address: HostAddress) -> Prefix:
        return next((prefix for prefix in self.delegated if address in prefix), host_prefix(address))


class _OfNode(Desired):
    cluster: ClusterName
    node: NodeName
    address: HostAddress
    """The node's own IPv4 address."""

    def key(self) -> str:
        """Its key in the bucket."""
        return NODE_KEY.render({"cluster": self.cluster, "node": self.node})


class FabricNode(_OfNode):
    """What a node of an ip-fabric cluster speaks BGP with. Its address is the source of its sessions."""

    type: Literal[NetworkType.IP_FABRIC] = NetworkType.IP_FABRIC
    asn: Annotated[int, Field(ge=1, le=4294967294)]
    reflectors: tuple[Reflector, ...]
    community: dict[Family, Community]
    timers: BgpTimers
    password: str | None = Field(default=None, repr=False)
    bfd: bool = False
    graceful_shutdown: bool = False
    """Announce everything with local preference 0, since the node is about to go down (RFC 8326)."""
    gateway: Gateway


class SwitchingNode(_OfNode):
    """The bridge that the VMs of a switching node are in."""

    type: Literal[NetworkType.SWITCHING] = NetworkType.SWITCHING
    bridge: InterfaceName
    uplink: InterfaceName | None = None
    """The NIC to move into it; None: the bridge is the operator's own."""
    confirm_seconds: Annotated[int, Field(ge=1, le=300)]
    """How long the gateway may be silent after the move."""


class RoutingNode(_OfNode):
    """How a routing node sends on what comes for its VMs. Its address is on the uplink, and is their gateway."""

    type: Literal[NetworkType.ROUTING] = NetworkType.ROUTING
    bridge: InterfaceName
    uplink: InterfaceName
    ipv6: MaskedAddress | None = None
    """The VMs' IPv6 gateway, an address of the bridge."""
    subnets: tuple[Prefix, ...] = ()
    """Routed into the bridge, so that what comes for nobody does not go back to the provider."""
    upstream: Upstream


DesiredNode = Annotated[FabricNode | SwitchingNode | RoutingNode, Field(discriminator="type")]
"""A node's own values."""

_NODE: TypeAdapter[FabricNode | SwitchingNode | RoutingNode] = TypeAdapter(DesiredNode)


def node_from_bytes(data: bytes) -> FabricNode | SwitchingNode | RoutingNode:
    """ValidationError when the bytes are no node's values."""
    return _NODE.validate_json(data)


class DesiredPools(Desired):
    """The blocks of all pools of a cluster: only what VMs get from them may be announced."""

    cluster: ClusterName
    prefixes: tuple[Prefix, ...]
    lengths: dict[Prefix, int] = Field(default_factory=dict, exclude_if=_is_empty)
    """Of what VMs get from a block, where that is no single address."""

    def key(self) -> str:
        """Its key in the bucket."""
        return POOLS_KEY.render({"cluster": self.cluster})


class HandedOut(Desired):
    """A generation that was handed out when a VM was removed. Of a removal no other key tells."""

    generation: Annotated[int, Field(ge=1)]

    def key(self) -> str:
        """Its key in the bucket."""
        return HANDED_OUT_KEY.render({})
