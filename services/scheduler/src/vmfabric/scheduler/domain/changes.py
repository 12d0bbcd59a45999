"""What one transaction writes: all of it or nothing."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.admin import NodeState
from vmfabric.contract.cluster import ClusterSpec, NodeSpec
from vmfabric.contract.envelope import Outgoing
from vmfabric.contract.names import ClusterName, NodeName
from vmfabric.contract.placement import PlacementDecision
from vmfabric.scheduler.domain.candidate import Usage
from vmfabric.scheduler.domain.drain import Drain
from vmfabric.scheduler.domain.record import LeftBehind, Stamp, VmKey, VmRecord


class NodeKey(NamedTuple):
    """A node, as everybody names it."""

    cluster: ClusterName
    node: NodeName


class LeftKey(NamedTuple):
    """What a VM has left behind on a lost node."""

    vm: VmKey
    node: NodeName


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of a node."""

    state: NodeState
    at: datetime | None
    """When its last heartbeat came."""
    addresses: tuple[HostAddress, ...]
    """Those that the node uses itself, of that heartbeat."""
    problem: str | None = None
    """Why no VM can work there, of that heartbeat."""


@dataclass(slots=True)
class Changes:
    """Of each thing only what it is in the end."""

    clusters: dict[ClusterName, ClusterSpec] = field(default_factory=dict)
    nodes: dict[NodeKey, NodeSpec] = field(default_factory=dict)
    """What operators applied; what was heard of a node and what it carries stay."""
    gone_nodes: set[NodeKey] = field(default_factory=set)
    heard: dict[NodeKey, Heard] = field(default_factory=dict)
    drains: dict[NodeKey, Drain | None] = field(default_factory=dict)
    new_vms: dict[VmKey, VmRecord] = field(default_factory=dict)
    """An error when one is there already."""
    vms: dict[VmKey, VmRecord] = field(default_factory=dict)
    """Those that were there before."""
    gone: set[VmKey] = field(default_factory=set)
    decisions: dict[VmKey, PlacementDecision] = field(default_factory=dict)
    """Of VMs for which a node was chosen."""
    left_behind: dict[LeftKey, LeftBehind | None] = field(default_factory=dict)
    """None: that node has let it go."""
    used: dict[NodeKey, Usage] = field(default_factory=dict)
    """What nodes carry more than before; less is negative."""
    last_requests: dict[VmKey, Stamp] = field(default_factory=dict)
    """Of VMs that are not there."""
    forget_before: datetime | None = None
    """Last requests that are older are forgotten."""
    messages: list[Outgoing] = field(default_factory=list)
    """Published after the commit, in this order."""
