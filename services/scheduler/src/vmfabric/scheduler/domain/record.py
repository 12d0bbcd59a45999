"""What the scheduler knows of one VM."""

import hashlib
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from vmfabric.contract.addresses import HostAddress, Mac
from vmfabric.contract.admin import VmPhase
from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.contract.errors import Code
from vmfabric.contract.ip import AllocatedAddress
from vmfabric.contract.names import ClusterName, NodeName, VmName
from vmfabric.contract.vm import VmRequested


class VmKey(NamedTuple):
    """A VM, as everybody names it."""

    cluster: ClusterName
    vm: VmName


class Stamp(NamedTuple):
    """Where a request stands in the order of the bus: a later one is greater, one delivered again is equal.

    The time comes first, since it outlives the stream; the number tells apart what came within a microsecond.
    """

    at: datetime
    """The bus's time stamp."""
    sequence: int
    """The number that the stream gave it."""


class Failure(BaseModel):
    """Why the VM is on its way back though nobody asked for its removal."""

    model_config = ConfigDict(frozen=True)

    step: str
    code: Code
    message: str


class Steps(BaseModel):
    """When each step of the creation was done."""

    model_config = ConfigDict(frozen=True)

    placed: datetime
    allocated: datetime | None = None
    wired: datetime | None = None
    announced: datetime | None = None


class Waiting(BaseModel):
    """How long the record has been in its phase, and what happens when nothing comes."""

    model_config = ConfigDict(frozen=True)

    since: datetime
    ask_at: datetime | None
    """When the question is asked again; None when there is nothing to wait for."""
    asked: int = 0
    """How many times it was asked again."""
    deadline: datetime | None
    """When the phase has failed; None when it has none, or when that has been said already."""

    @property
    def due(self) -> datetime | None:
        """When somebody has to look after it."""
        return min((moment for moment in (self.ask_at, self.deadline) if moment is not None), default=None)

    def is_due(self, now: datetime) -> bool:
        """Whether that is now."""
        return self.due is not None and self.due <= now

    def is_over(self, now: datetime) -> bool:
        """Whether the phase has failed."""
        return self.deadline is not None and self.deadline <= now


class MoveSteps(BaseModel):
    """When each step of a migration was done."""

    model_config = ConfigDict(frozen=True)

    placed: datetime
    wired: datetime | None = None
    running: datetime | None = None
    announced: datetime | None = None
    left: datetime | None = None


def _is_silent(before: dict[str, Any]) -> bool:
    desired: DesiredVm = before["desired"]
    return not desired.is_announced


class Move(BaseModel):
    """A migration under way, with what the VM has on the node that is not its home: the target until the guest runs
    there, then the source.
    """

    model_config = ConfigDict(frozen=True)

    source: NodeName
    target: NodeName
    target_addresses: tuple[HostAddress, ...]
    generation: int
    """Of the VM on the other node."""
    desired: DesiredVm
    """What the bucket says of the VM on the other node."""
    asked_at: datetime
    """When the bus took the request."""
    trace_id: str
    steps: MoveSteps
    failure: Failure | None = None
    """Why it was given up."""
    withdrawn: bool = Field(default_factory=_is_silent)
    """Whether the other node announces nothing: it has said so, or nothing is announced in its cluster."""
    unwired: bool = False
    """Whether the other node has said that nothing is left."""

    @property
    def is_gone(self) -> bool:
        """Whether the other node has let go of everything."""
        return self.withdrawn and self.unwired


class LeftBehind(BaseModel):
    """What a VM has on a node that is lost, until that node has said that it let go."""

    model_config = ConfigDict(frozen=True)

    desired: DesiredVm
    """Its absence."""
    withdrawn: bool = Field(default_factory=_is_silent)
    unwired: bool = False

    @property
    def is_gone(self) -> bool:
        """Whether nothing of it is left."""
        return self.withdrawn and self.unwired


class VmRecord(BaseModel):
    """One VM from its placement until nothing of it is left."""

    model_config = ConfigDict(frozen=True)

    request: VmRequested
    last_request: Stamp
    """The last request that was served of those which say whether this VM is to be there."""
    last_migration_request: Stamp | None = None
    """Kept apart: a migration that is asked for later must not make an unserved removal look like an old one."""
    began_at: datetime
    """When the bus took the request that made it, or when it began anew on another node."""
    trace_id: str
    node: NodeName
    generation: int
    mac: Mac
    phase: VmPhase
    waiting: Waiting
    steps: Steps
    addresses: tuple[AllocatedAddress, ...] = ()
    leased: int = 0
    """The generation that ipam has said to know: behind its own after a migration, until ipam has heard of that."""
    desired: DesiredVm | None = None
    """What the bucket says of it; None until it has addresses."""
    move: Move | None = None
    """The migration that is under way."""
    evacuated: bool = False
    """Whether a lost node may still announce it; its own route is preferred until that node has let go."""
    placed_again: bool = False
    """Whether the first node that was chosen for it had no addresses."""
    failure: Failure | None = None
    delete_requested: bool = False
    reported: bool = False
    """Whether it has been said that its node does not let it go."""

    @property
    def key(self) -> VmKey:
        """Cluster and name."""
        return VmKey(self.request.cluster, self.request.vm)

    @property
    def cluster(self) -> ClusterName:
        """Its cluster."""
        return self.request.cluster

    @property
    def vm(self) -> VmName:
        """Its name."""
        return self.request.vm

    @property
    def is_announced(self) -> bool:
        """Whether it waits for bgp-announcers; nobody does before it has addresses."""
        return self.desired is not None and self.desired.is_announced

    @property
    def going_back(self) -> bool:
        """Whether it is being taken apart, or will be when its migration is over."""
        return self.delete_requested or self.phase in {VmPhase.WITHDRAWING, VmPhase.UNWIRING, VmPhase.RELEASING}

    @property
    def current_trace_id(self) -> str:
        """The trace of what is being done."""
        return self.trace_id if self.move is None else self.move.trace_id

    @property
    def settled_presence(self) -> Presence:
        """What it has at home when nothing is under way."""
        return Presence.EVACUATED if self.evacuated and self.is_announced else Presence.ROUTED

    def all_desired(self) -> tuple[DesiredVm, ...]:
        """What the bucket says of it, on every node."""
        home = () if self.desired is None else (self.desired,)
        return home if self.move is None or self.move.is_gone else (*home, self.move.desired)

    def generations(self) -> frozenset[int]:
        """Its own, and that on its other node."""
        return frozenset((self.generation, *([] if self.move is None else [self.move.generation])))

    def nodes(self) -> frozenset[NodeName]:
        """Where it takes room."""
        other = () if self.move is None or self.move.is_gone else (self.move.desired.node,)
        return frozenset((self.node, *other))

    def wanted(self, presence: Presence) -> DesiredVm:
        """Its desired value with another presence; an error before it has addresses."""
        if self.desired is None:
            raise ValueError(f"{self.cluster}/{self.vm} has no addresses yet, so nothing can be wanted on its node")
        return self.desired.model_copy(update={"presence": presence})


def guest_mac(cluster: ClusterName, vm: VmName) -> Mac:
    """A MAC that follows from the name, so that a VM made again keeps it: locally administered, unicast."""
    digest = hashlib.sha256(f"{cluster}/{vm}".encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x02, *digest[:5]))
