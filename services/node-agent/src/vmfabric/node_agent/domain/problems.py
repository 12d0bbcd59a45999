"""What is in the way of a VM."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vmfabric.contract.addresses import Family, Prefix
from vmfabric.contract.desired import Presence
from vmfabric.contract.names import VmName
from vmfabric.node_agent.domain import vlans
from vmfabric.node_agent.domain.actual import Actual
from vmfabric.node_agent.domain.port import IPV6_SMALLEST_MTU, Port
from vmfabric.node_agent.domain.setup_plan import is_ours


@dataclass(frozen=True, slots=True)
class Problem:
    """Why nothing can be done for a VM, or for all of the node, until somebody acts."""

    vm: VmName | None
    """None: the node's own setup."""
    sentence: str


def is_taken(port: Port, actual: Actual) -> bool:
    """Whether a stranger's link has the name that the port's should have."""
    link = actual.links.get(port.interface)
    return link is not None and not is_ours(link, port.alias)


def problems_of(ports: Sequence[Port], actual: Actual, bridges: frozenset[str]) -> Iterator[Problem]:
    """`bridges` are those that a port can be put into."""
    owners, strangers = owners_of(ports), vlans.strangers(actual.links.values())
    for port in ports:
        if port.presence is Presence.ABSENT:
            continue
        if is_taken(port, actual):
            link = actual.links[port.interface]
            yield Problem(
                port.vm,
                f"interface {port.interface} should be the VM's, but another one has this name "
                f"(kind {link.kind}, alias {link.alias}); it is left alone: rename or delete it",
            )
        if port.bridge is not None and port.bridge not in bridges:
            yield Problem(
                port.vm, f"the VM's port should be in bridge {port.bridge}, and there is no such bridge here"
            )
        if (sentence := vlans.problem_of(port, actual, strangers)) is not None:
            yield Problem(port.vm, sentence)
        for prefix in sorted(port.prefixes, key=str):
            if owners[prefix] != port.vm:
                yield Problem(port.vm, f"{prefix} should be the VM's, but is still that of VM {owners[prefix]} here")
            if Family.of(prefix) is Family.IPV6 and port.mtu < IPV6_SMALLEST_MTU:
                yield Problem(
                    port.vm,
                    f"{prefix} needs an MTU of at least {IPV6_SMALLEST_MTU}, the VM's is {port.mtu}: raise it",
                )


def owners_of(ports: Sequence[Port]) -> Mapping[Prefix, VmName]:
    """Who holds each prefix: the lowest generation. A later one has to wait until that is told to be absent."""
    owners: dict[Prefix, VmName] = {}
    for port in sorted(ports, key=lambda port: (port.generation, port.vm)):
        if port.presence is not Presence.ABSENT:
            for prefix in port.prefixes:
                owners.setdefault(prefix, port.vm)
    return owners
