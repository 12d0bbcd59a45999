"""Which routes the node should have for a port, during a migration too (docs/decisions/0002)."""

from collections.abc import Iterable, Iterator, Sequence

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.dataplane import FORWARD_METRIC, PREFERRED_METRIC, ROUTE_METRIC
from vmfabric.contract.desired import Presence
from vmfabric.node_agent.domain.actual import HostRoute, Link
from vmfabric.node_agent.domain.port import LINK_GROUP, Port


def wanted_routes(port: Port, links: Iterable[Link]) -> frozenset[HostRoute]:
    """To the port, and on to the node that the guest has left for, where that is on a segment of this node's."""
    match port.presence:
        case Presence.PREFERRED:
            return _to_port(port, PREFERRED_METRIC)
        case Presence.ROUTED:
            return _to_port(port, ROUTE_METRIC)
        case Presence.FORWARDED:
            return _to_port(port, ROUTE_METRIC) | frozenset(_onward(port, list(links)))
        case _:
            return frozenset()


def _to_port(port: Port, metric: int) -> frozenset[HostRoute]:
    return frozenset(HostRoute(prefix, port.interface, metric) for prefix in port.prefixes)


def _onward(port: Port, links: Sequence[Link]) -> Iterator[HostRoute]:
    hops = {gateway.version: (gateway, link) for gateway, link in _on_segments(port.toward, links)}
    for prefix in port.prefixes:
        if prefix.version in hops:
            gateway, link = hops[prefix.version]
            yield HostRoute(prefix, link.name, FORWARD_METRIC, gateway)


def _on_segments(addresses: Sequence[HostAddress], links: Sequence[Link]) -> Iterator[tuple[HostAddress, Link]]:
    """Those of the addresses that a link of the node reaches directly; the first of a family comes last."""
    for address in reversed(addresses):
        for link in links:
            if link.up and link.group != LINK_GROUP and _reaches(link, address):
                yield address, link


def _reaches(link: Link, address: HostAddress) -> bool:
    return any(address in own.network and address != own.ip for own in link.addresses)
