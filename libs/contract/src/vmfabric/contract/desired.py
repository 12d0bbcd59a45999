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

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from vmfabric.contract.addresses import Community, Family, HostAddress, Mac, Prefix, host_prefix
from vmfabric.contract.cluster import BgpTimers, Gateway, Reflector, Virtualization
from vmfabric.contract.envelope import Trace
from vmfabric.contract.guest_config import GuestConfigForm
from vmfabric.contract.model import Desired
from vmfabric.contract.names import ClusterName, NodeName, VmName
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


class DesiredVm(Desired):
    """One VM on one node."""

    cluster: ClusterName
    node: NodeName
    vm: VmName
    generation: Annotated[int, Field(ge=1)]
    presence: Presence
    mac: Mac
    addresses: tuple[HostAddress, ...]
    toward: tuple[HostAddress, ...] = ()
    """Addresses of the node that the guest has left for, while it is forwarded; one on a segment of this node's is
    the next hop."""
    virtualization: Virtualization
    gateway: Gateway
    mtu: Annotated[int, Field(ge=576, le=65535)] = 1500
    guest_config: GuestConfigForm = GuestConfigForm.FACTS
    """In which form the node-agent says what the guest has to configure."""
    trace_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    """The trace of the request that it follows from; the facts about it belong to the same."""

    def key(self) -> str:
        """Its key in the bucket."""
        return VM_KEY.render({"cluster": self.cluster, "node": self.node, "vm": self.vm})

    def trace(self) -> Trace:
        """The trace that facts about it belong to."""
        return Trace(self.trace_id)

    def prefixes(self) -> tuple[Prefix, ...]:
        """The /32 and /128 that are routed to the VM."""
        return tuple(host_prefix(address) for address in self.addresses)


class DesiredNode(Desired):
    """What a node of an ip-fabric cluster speaks BGP with."""

    cluster: ClusterName
    node: NodeName
    type: Literal["ip-fabric"]
    asn: Annotated[int, Field(ge=1, le=4294967294)]
    address: HostAddress
    """The node's own IPv4 address in the fabric: router id and source of its sessions."""
    reflectors: tuple[Reflector, ...]
    community: dict[Family, Community]
    timers: BgpTimers
    password: str | None = Field(default=None, repr=False)
    bfd: bool = False
    graceful_shutdown: bool = False
    """Announce everything with local preference 0, since the node is about to go down (RFC 8326)."""
    gateway: Gateway

    def key(self) -> str:
        """Its key in the bucket."""
        return NODE_KEY.render({"cluster": self.cluster, "node": self.node})


class DesiredPools(Desired):
    """The blocks of all pools of a cluster: only addresses inside them may be announced."""

    cluster: ClusterName
    prefixes: tuple[Prefix, ...]

    def key(self) -> str:
        """Its key in the bucket."""
        return POOLS_KEY.render({"cluster": self.cluster})


class HandedOut(Desired):
    """A generation that was handed out when a VM was removed. Of a removal no other key tells."""

    generation: Annotated[int, Field(ge=1)]

    def key(self) -> str:
        """Its key in the bucket."""
        return HANDED_OUT_KEY.render({})
