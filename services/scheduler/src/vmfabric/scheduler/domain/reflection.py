"""Do the reflectors send a node what it should have, and nothing else?"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vmfabric.contract.addresses import HostAddress, Prefix
from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.contract.explanation import Finding, Reflected, ReflectedRoute
from vmfabric.contract.names import NodeName, VmName


@dataclass(frozen=True, slots=True)
class Subject:
    """The node that is looked at."""

    node: NodeName
    addresses: Collection[HostAddress]
    """Its own: the next hops that lead to it."""


def compare(subject: Subject, values: Sequence[DesiredVm], reflected: Reflected) -> Iterator[Finding]:
    """`values` are what the node should have, `reflected` is what another node is told."""
    owners = {prefix: value for value in values for prefix in value.prefixes()}
    for reflector, routes in reflected.routes.items():
        told = {route.prefix: route for route in routes}
        for prefix, value in owners.items():
            if value.presence.is_announced and value.presence is not Presence.FORWARDED:
                is_right, sentence = _wanted(subject, prefix, told.get(prefix))
                yield _finding(value.vm, is_right, f"reflector {reflector} {sentence}")
        for route in _unwanted(subject, owners, routes):
            yield _finding(
                owners[route.prefix].vm if route.prefix in owners else None,
                False,
                f"reflector {reflector} sends {route.prefix} to {subject.node}, which should not announce it. If "
                f"{subject.node}'s FRR does not, the reflector has missed its withdrawal: `clear bgp {reflector}` in "
                f"vtysh on {subject.node} has both begin anew",
            )


def _wanted(subject: Subject, prefix: Prefix, route: ReflectedRoute | None) -> tuple[bool, str]:
    if route is None:
        return False, f"has no route to {prefix}, which {subject.node} should announce"
    way = f"sends {prefix} to {route.next_hop}, with local preference {route.local_preference}"
    # Whose a link-local next hop is does not follow from it.
    if route.next_hop not in subject.addresses and not route.next_hop.is_link_local:
        return False, f"{way}, and not to {subject.node}: `node.audit` of the node with that address says why"
    return True, way


def _unwanted(
    subject: Subject, owners: Mapping[Prefix, DesiredVm], routes: Sequence[ReflectedRoute]
) -> Iterator[ReflectedRoute]:
    for route in routes:
        is_wanted = route.prefix in owners and owners[route.prefix].presence.is_announced
        if route.next_hop in subject.addresses and not is_wanted:
            yield route


def _finding(vm: VmName | None, is_right: bool, sentence: str) -> Finding:
    return Finding(vm=vm, about="reflectors", is_right=is_right, sentence=sentence)
