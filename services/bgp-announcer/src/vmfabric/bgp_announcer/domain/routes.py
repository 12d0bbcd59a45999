"""What FRR says of a route and of its sessions, and what follows for a VM."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from vmfabric.bgp_announcer.domain.configuration import PREFERENCES, expected_preference
from vmfabric.contract.addresses import Community, Family, HostAddress, Prefix
from vmfabric.contract.dataplane import EVACUATED_LOCAL_PREFERENCE, LOCAL_PREFERENCE, PREFERRED_LOCAL_PREFERENCE
from vmfabric.contract.desired import DesiredVm, FabricNode, Presence
from vmfabric.contract.route import AnnouncedRoute, BgpSessionDown, BgpSessionUp, RouteAnnounced, RouteWithdrawn


@dataclass(frozen=True, slots=True)
class Route:
    """A prefix that this node itself brings into BGP."""

    communities: tuple[Community, ...]
    local_preference: int
    advertised_to: frozenset[HostAddress]


@dataclass(frozen=True, slots=True)
class Session:
    """A BGP session with a neighbour."""

    is_established: bool
    reason: str = ""
    """Why not, in FRR's words."""


_PREFERENCES = {
    Presence.PREFERRED: PREFERRED_LOCAL_PREFERENCE,
    Presence.EVACUATED: EVACUATED_LOCAL_PREFERENCE,
}

Found = Mapping[Prefix, Route | None]
"""None: FRR has no such prefix of its own."""


def answer(
    desired: DesiredVm, found: Found, node: FabricNode, of_others: Collection[Prefix] = ()
) -> RouteAnnounced | RouteWithdrawn | None:
    """The fact that is true of the VM now, if it is the one that is wanted.

    `of_others`: what the node announces for other VMs. The address of one that the node was lost with may have been
    given to another of them since.
    """
    who = {"cluster": desired.cluster, "vm": desired.vm, "node": desired.node, "generation": desired.generation}
    if not desired.presence.is_announced:
        is_gone = all(found[prefix] is None or prefix in of_others for prefix in desired.prefixes())
        return RouteWithdrawn.model_validate(who) if is_gone else None
    reflectors = [reflector.address for reflector in node.reflectors]
    preference = expected(desired, node)
    routes: list[AnnouncedRoute] = []
    for prefix in desired.prefixes():
        route = found[prefix]
        having = tuple(address for address in reflectors if route and address in route.advertised_to)
        if route is None or not having or route.local_preference != preference:
            return None
        if node.community[Family.of(prefix)] not in route.communities:
            return None
        missing = tuple(address for address in reflectors if address not in having)
        routes.append(
            AnnouncedRoute(
                prefix=prefix,
                communities=route.communities,
                local_preference=route.local_preference,
                reflectors=having,
                missing=missing,
            )
        )
    return RouteAnnounced.model_validate({**who, "routes": tuple(routes)})


def expected(desired: DesiredVm, node: FabricNode) -> int:
    """The local preference that its routes should have."""
    return expected_preference(node, _PREFERENCES.get(desired.presence, LOCAL_PREFERENCE))


def is_in_step(metric: int | None, route: Route | None, node: FabricNode) -> bool:
    """Whether bgpd has of a prefix what zebra has: `metric` is that of the kernel's route that zebra has selected."""
    preference = PREFERENCES.get(metric) if metric is not None else None
    if preference is None or route is None:
        return preference is None and route is None
    return route.local_preference == expected_preference(node, preference)


def lost(desired: DesiredVm, found: Found) -> tuple[Prefix, ...]:
    """Prefixes of the VM that FRR should bring into BGP and does not."""
    return tuple(prefix for prefix in desired.prefixes() if desired.presence.is_announced and found[prefix] is None)


def session_changes(
    cluster: str, node: str, before: Mapping[HostAddress, bool], now: Mapping[HostAddress, Session]
) -> tuple[BgpSessionUp | BgpSessionDown, ...]:
    """What changed since the last look. A session that is first seen down is no news."""
    changes: list[BgpSessionUp | BgpSessionDown] = []
    for reflector, session in now.items():
        was_up = before.get(reflector, False)
        if session.is_established and not was_up:
            changes.append(BgpSessionUp(cluster=cluster, node=node, reflector=reflector))
        if was_up and not session.is_established:
            changes.append(BgpSessionDown(cluster=cluster, node=node, reflector=reflector, reason=session.reason))
    return tuple(changes)
