"""What is to be placed, and with whom."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.cluster import ClusterSpec, NetworkType, Virtualization
from vmfabric.contract.names import NodeName, ResourceName
from vmfabric.contract.vm import GroupKind, GroupRule, VmRequested
from vmfabric.scheduler.domain.candidate import Usage
from vmfabric.scheduler.domain.record import VmKey, VmRecord
from vmfabric.scheduler.domain.supply import Needs


@dataclass(frozen=True, slots=True)
class Company:
    """A group that the VM names, and where the others of it are."""

    rule: GroupRule
    on: Mapping[NodeName, int]
    """How many of them are on a node, or on their way to it; nodes without any are not named."""
    alone_on: frozenset[NodeName] = frozenset()
    """Nodes with one that has a hard anti-affinity to the group."""

    @property
    def keeps_together(self) -> bool:
        """Whether it is to be where the others are."""
        return self.rule.kind is GroupKind.AFFINITY


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be placed."""

    takes: Usage
    virtualization: Virtualization
    node: NodeName | None = None
    """Only this one, if given."""
    leaves: NodeName | None = None
    """Not this one, if given: it is there now."""
    labels: frozenset[tuple[str, str]] = frozenset()
    company: tuple[Company, ...] = ()
    is_new: bool = False
    """Whether the cluster will have more to carry than before."""
    needs: Needs | None = None
    """The addresses that it has to be given; None when it takes its own along."""
    sent: tuple[HostAddress, ...] = ()
    """Addresses that it has chosen, and that a provider must send to its node."""


def wish_of(
    request: VmRequested,
    cluster: ClusterSpec,
    members: Collection[VmRecord],
    *,
    drained: Collection[NodeName],
    node: NodeName | None,
    leaves: NodeName | None = None,
    is_new: bool = False,
) -> Wish:
    """`members` are the VMs of at least the groups that it names; those on `drained` nodes have to leave them."""
    key = VmKey(request.cluster, request.vm)
    others = [record for record in members if record.key != key]
    return Wish(
        takes=Usage.of(request),
        virtualization=cluster.virtualization,
        node=node,
        leaves=leaves,
        labels=frozenset(request.labels.items()),
        company=tuple(_company(rule, others, frozenset(drained)) for rule in request.groups),
        is_new=is_new,
        needs=Needs.of(request) if is_new else None,
        sent=_chosen(request) if cluster.type is NetworkType.ROUTING else (),
    )


def groups_of(*requests: VmRequested) -> frozenset[ResourceName]:
    """Those that they name."""
    return frozenset(rule.group for request in requests for rule in request.groups)


def _chosen(request: VmRequested) -> tuple[HostAddress, ...]:
    return tuple(wish.address for wish in request.addresses or () if wish.address is not None)


def _company(rule: GroupRule, others: Collection[VmRecord], drained: Collection[NodeName]) -> Company:
    on: Counter[NodeName] = Counter()
    alone_on: set[NodeName] = set()
    for record in others:
        theirs = next((each for each in record.request.groups if each.group == rule.group), None)
        if theirs is None:
            continue
        on.update(record.nodes() - frozenset(drained))
        if theirs.hard and theirs.kind is GroupKind.ANTI_AFFINITY:
            alone_on |= record.nodes()
    return Company(rule, on, frozenset(alone_on))
