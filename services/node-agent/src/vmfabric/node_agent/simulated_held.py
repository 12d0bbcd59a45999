"""The addresses and routes of a node's own links in the kernel in memory."""

from collections.abc import Mapping
from typing import assert_never

from vmfabric.node_agent.domain import held
from vmfabric.node_agent.domain.actual import Held, HeldRoute


class RefusedError(Exception):
    """What the kernel would say no to."""


def moved(holdings: Mapping[str, Held], operation: held.MoveOperation) -> dict[str, Held]:
    """What links have after the operation. RefusedError when a kernel would refuse it."""
    name = operation.interface
    has = holdings.get(name, Held())
    match operation:
        case held.PutAddress(held=address):
            return {**holdings, name: has | Held((address,))}
        case held.TakeAddress(held=address):
            if address not in has.addresses:
                raise RefusedError(f"{name} has no address {address.address}")
            left = tuple(it for it in has.addresses if it != address)
            # With its last address of a family a link loses the routes of that family.
            versions = {it.address.version for it in left}
            return {**holdings, name: Held(left, tuple(it for it in has.routes if it.prefix.version in versions))}
        case held.PutRoute(held=route):
            if not _is_reached(route, has):
                raise RefusedError(f"the gateway of {route.prefix} is not reached over {name}")
            others = {other: _without(its, route) for other, its in holdings.items()}
            return {**others, name: _without(has, route) | Held((), (route,))}
        case held.TakeRoute(held=route):
            if route not in has.routes:
                raise RefusedError(f"there is no route {route.prefix} over {name}")
            return {**holdings, name: Held(has.addresses, tuple(it for it in has.routes if it != route))}
        case _:
            assert_never(operation)


def _is_reached(route: HeldRoute, has: Held) -> bool:
    gateway = route.gateway
    if gateway is None or route.on_link or gateway.is_link_local:
        return any(it.address.version == route.prefix.version for it in has.addresses)
    connected = [it.network for it in has.addresses if not it.has_no_prefix_route]
    return any(gateway in it for it in (*connected, *(it.prefix for it in has.routes if it.gateway is None)))


def _without(has: Held, route: HeldRoute) -> Held:
    return Held(has.addresses, tuple(it for it in has.routes if it.key != route.key))
