"""What a VM holds, and what each thing that is said of the VM does to it.

Said of a VM: `placed`, `deleting` (wired, or never wired) by the scheduler, `removed` by its node. Each carries a
generation; one that is older than the lease's is ignored. A VM that nobody has heard of stands like a released one of
a generation before all.

| released, so nothing is held | same generation | newer generation |
| --- | --- | --- |
| placed | `ip.refused` again if it was refused; else ignored: its VM is gone | allocate: held; or refused: released |
| deleting, wired or not | `ip.released` again | `ip.released` at once: released, of that generation |
| removed | ignored | ignored |

| same generation | held | let go | releasing |
| --- | --- | --- | --- |
| placed | `ip.allocated` again | ignored: on its way back | ignored |
| deleting, wired | releasing | release | ignored: its node still has it |
| deleting, never wired | release | release | release |
| removed | let go | ignored | release |

| newer generation | held | let go | releasing |
| --- | --- | --- | --- |
| placed | move on, `ip.allocated` | the same: held | the same: held |
| deleting, wired | move on: releasing | the same | the same |
| deleting, never wired | releasing: the node of the older one has to let go | release | ignored |
| removed | ignored | ignored | ignored |

So addresses are released only when the scheduler has given the VM up and no node can have it wired.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import NamedTuple

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.errors import Code
from vmfabric.contract.names import ClusterName, NodeName, ResourceName, VmName


class VmKey(NamedTuple):
    """A VM, as everybody names it."""

    cluster: ClusterName
    vm: VmName


class Given(NamedTuple):
    """An address of a VM and the pool that it is from."""

    address: HostAddress
    pool: ResourceName


class Refusal(NamedTuple):
    """Why a VM cannot have the addresses that it wants."""

    code: Code
    sentence: str


class State(StrEnum):
    """Where a lease is in its life."""

    HELD = "held"
    RELEASING = "releasing"
    """The scheduler has given the VM up; its node has not said that it let go."""
    LET_GO = "let-go"
    """The node let go; the scheduler's word is still on its way."""
    RELEASED = "released"
    """Nothing is held. The row stays for a while, as a fence against late events."""


class Said(StrEnum):
    """What is said of a VM."""

    PLACED = "placed"
    DELETING = "deleting"
    DELETING_UNWIRED = "deleting, never wired"
    REMOVED = "removed"


class Act(Enum):
    """What follows."""

    IGNORE = auto()
    ALLOCATE = auto()
    """Take addresses; held, with `ip.allocated`. Or released, of that generation, with `ip.refused`."""
    ANSWER_ALLOCATED = auto()
    """Say `ip.allocated` again."""
    MOVE_ON = auto()
    """The addresses stay with the VM, node and generation become those of the event; held, with `ip.allocated`."""
    MOVE_BACK = auto()
    """The same, but releasing."""
    WAIT_FOR_NODE = auto()
    """Releasing."""
    NOTE_LET_GO = auto()
    """Let go."""
    RELEASE = auto()
    """The addresses come to rest; released, with `ip.released`."""
    FENCE = auto()
    """Released, of the generation of the event, with `ip.released`: nothing was held."""
    ANSWER_RELEASED = auto()
    """Say `ip.released` again."""
    ANSWER_REFUSED = auto()
    """Say `ip.refused` again, where that was the answer."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What is known of a VM."""

    key: VmKey
    node: NodeName
    generation: int
    state: State
    since: datetime
    """When it came into this state."""
    addresses: tuple[Given, ...]
    """In the order of the wishes. Of a released lease: those that still rest."""
    refusal: Refusal | None = None
    """Why a released lease never held anything, where that was refused."""


SAME: Mapping[tuple[State, Said], Act] = MappingProxyType(
    {
        (State.HELD, Said.PLACED): Act.ANSWER_ALLOCATED,
        (State.HELD, Said.DELETING): Act.WAIT_FOR_NODE,
        (State.HELD, Said.DELETING_UNWIRED): Act.RELEASE,
        (State.HELD, Said.REMOVED): Act.NOTE_LET_GO,
        (State.LET_GO, Said.PLACED): Act.IGNORE,
        (State.LET_GO, Said.DELETING): Act.RELEASE,
        (State.LET_GO, Said.DELETING_UNWIRED): Act.RELEASE,
        (State.LET_GO, Said.REMOVED): Act.IGNORE,
        (State.RELEASING, Said.PLACED): Act.IGNORE,
        (State.RELEASING, Said.DELETING): Act.IGNORE,
        (State.RELEASING, Said.DELETING_UNWIRED): Act.RELEASE,
        (State.RELEASING, Said.REMOVED): Act.RELEASE,
        (State.RELEASED, Said.PLACED): Act.ANSWER_REFUSED,
        (State.RELEASED, Said.DELETING): Act.ANSWER_RELEASED,
        (State.RELEASED, Said.DELETING_UNWIRED): Act.ANSWER_RELEASED,
        (State.RELEASED, Said.REMOVED): Act.IGNORE,
    }
)

NEWER: Mapping[tuple[State, Said], Act] = MappingProxyType(
    {
        (State.HELD, Said.PLACED): Act.MOVE_ON,
        (State.HELD, Said.DELETING): Act.MOVE_BACK,
        (State.HELD, Said.DELETING_UNWIRED): Act.WAIT_FOR_NODE,
        (State.HELD, Said.REMOVED): Act.IGNORE,
        (State.LET_GO, Said.PLACED): Act.MOVE_ON,
        (State.LET_GO, Said.DELETING): Act.MOVE_BACK,
        (State.LET_GO, Said.DELETING_UNWIRED): Act.RELEASE,
        (State.LET_GO, Said.REMOVED): Act.IGNORE,
        (State.RELEASING, Said.PLACED): Act.MOVE_ON,
        (State.RELEASING, Said.DELETING): Act.MOVE_BACK,
        (State.RELEASING, Said.DELETING_UNWIRED): Act.IGNORE,
        (State.RELEASING, Said.REMOVED): Act.IGNORE,
        (State.RELEASED, Said.PLACED): Act.ALLOCATE,
        (State.RELEASED, Said.DELETING): Act.FENCE,
        (State.RELEASED, Said.DELETING_UNWIRED): Act.FENCE,
        (State.RELEASED, Said.REMOVED): Act.IGNORE,
    }
)


def unheard_of(key: VmKey, node: NodeName, now: datetime) -> Lease:
    """A VM without a lease, in the terms of the tables."""
    return Lease(key, node, 0, State.RELEASED, now, ())


def act_on(lease: Lease, said: Said, generation: int, node: NodeName) -> Act:
    """The cell for what is said. Another node than the lease's cannot let go for it."""
    if generation < lease.generation or (said is Said.REMOVED and node != lease.node):
        return Act.IGNORE
    return (SAME if generation == lease.generation else NEWER)[lease.state, said]
