"""Which routes the node should have for a port, during a migration too (docs/decisions/0002)."""

from collections.abc import Iterable, Iterator, Sequence

from vmfabric.contract.addresses import HostAddress, Prefix
from vmfabric.contract.dataplane import (
    EVACUATED_METRIC,
    FORWARD_METRIC,
    PREFERRED_METRIC,
    RESTORED_METRIC,
    RESTORED_REFUGE_METRIC,
    ROUTE_METRIC,
)
from vmfabric.contract.desired import Presence
from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.actual import HostRoute, Link
from vmfabric.node_agent.domain.port import LINK_GROUP, Port

_METRICS = frozenset(
    {PREFERRED_METRIC, FORWARD_METRIC, EVACUATED_METRIC, ROUTE_METRIC, RESTORED_METRIC, RESTORED_REFUGE_METRIC}
)


def wanted_routes(port: Port, links: Iterable[Link]) -> frozenset[HostRoute]:
    """To the port, and on to the node that the guest has left for, where that is on a segment of this node's."""
    match port.presence:
        case Presence.PREFERRED:
            return _to_port(port, PREFERRED_METRIC)
        case Presence.EVACUATED:
            return _to_port(port, EVACUATED_METRIC)
        case Presence.ROUTED:
            return _to_port(port, ROUTE_METRIC)
        case Presence.FORWARDED:
            onward = frozenset() if port.bridge else frozenset(_onward(port, list(links)))
            return _to_port(port, ROUTE_METRIC) | onward
        case _:
            return frozenset()


def remembered_routes(port: Port, present: frozenset[HostRoute]) -> frozenset[HostRoute]:
    """Those of a port that only this node remembers: what is there stays, and what is missing comes back with less
    preference than the route of any other node.
    """
    if not port.presence.is_announced or port.routed_to is None:
        return frozenset()
    to_port = {route for route in present if route.prefix in port.prefixes and route.interface == port.routed_to}
    onward = {route for route in present if route.prefix in port.prefixes and route.gateway in port.toward}
    kept = frozenset(route for route in to_port | onward if route.metric in _METRICS)
    served = {route.prefix for route in kept & to_port}
    metric = RESTORED_REFUGE_METRIC if port.presence is Presence.EVACUATED else RESTORED_METRIC
    return kept | frozenset(_routes(port.prefixes - served, port, port.routed_to, metric))


def _to_port(port: Port, metric: int) -> frozenset[HostRoute]:
    if port.routed_to is None:
        return frozenset()
    return frozenset(_routes(port.prefixes, port, port.routed_to, metric))


def _routes(prefixes: Iterable[Prefix], port: Port, to: InterfaceName, metric: int) -> Iterator[HostRoute]:
    return (HostRoute(prefix, to, metric, port.led_by.get(prefix)) for prefix in prefixes)


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
