"""FRR's JSON, as of 8.4 and 10: names that moved between versions are looked for under both."""

from collections.abc import Mapping

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from vmfabric.bgp_announcer.domain.routes import Route, Session
from vmfabric.bgp_announcer.ports import FrrError
from vmfabric.contract.addresses import HostAddress, Prefix
from vmfabric.contract.dataplane import LOCAL_PREFERENCE
from vmfabric.contract.errors import Code
from vmfabric.contract.explanation import ReflectedRoute

_WELL_KNOWN = {
    "gracefulShutdown": "65535:0",
    "acceptOwn": "65535:1",
    "llgrStale": "65535:6",
    "noLlgr": "65535:7",
    "blackhole": "65535:666",
    "noExport": "65535:65281",
    "noAdvertise": "65535:65282",
    "localAs": "65535:65283",
    "noPeer": "65535:65284",
}
"""Communities that FRR says by name (https://www.iana.org/assignments/bgp-well-known-communities)."""


class _Shown(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Communities(_Shown):
    list: tuple[str, ...] = ()


class _Path(_Shown):
    sourced: bool = False
    local_preference: int = Field(default=LOCAL_PREFERENCE, alias="locPrf")
    community: _Communities = _Communities()
    large_community: _Communities = Field(default=_Communities(), alias="largeCommunity")


class _Prefix(_Shown):
    warning: str | None = None
    prefix: str | None = None
    paths: tuple[_Path, ...] = ()
    advertised_to: dict[HostAddress, object] = Field(default_factory=dict, alias="advertisedTo")


class _Hop(_Shown):
    address: str | None = Field(default=None, alias="ip")
    interface: str | None = Field(default=None, alias="interfaceName")


class _KernelRoute(_Shown):
    protocol: str
    is_selected: bool = Field(default=False, alias="selected")
    distance: int = 0
    metric: int = 0
    hops: tuple[_Hop, ...] = Field(default=(), alias="nexthops")


class _Peer(_Shown):
    state: str
    last_reset: str = Field(default="", alias="lastResetDueTo")


class _Family(_Shown):
    peers: dict[HostAddress, _Peer] = Field(default_factory=dict)


class _ReceivedRoute(_Shown):
    prefix: Prefix = Field(alias="network")
    next_hop: HostAddress = Field(validation_alias=AliasChoices("nextHop", "nextHopGlobal"))
    local_preference: int = Field(default=LOCAL_PREFERENCE, alias="locPrf")


class _Received(_Shown):
    warning: str | None = None
    routes: dict[str, _ReceivedRoute] = Field(default_factory=dict, alias="receivedRoutes")


_KernelRoutes = TypeAdapter(dict[str, tuple[_KernelRoute, ...]])


def route(text: str) -> Route | None:
    """The answer to `show bgp … X/32 json`; None when this node brings no such prefix into BGP."""
    try:
        shown = _Prefix.model_validate_json(text)
    except ValidationError as error:
        raise FrrError(Code.INTERNAL, f"FRR's answer about a prefix cannot be read: {error}") from error
    own = next((path for path in shown.paths if path.sourced), None)
    if own is None:
        return None
    communities = (*(_WELL_KNOWN.get(it, it) for it in own.community.list), *own.large_community.list)
    return Route(communities, own.local_preference, frozenset(shown.advertised_to))


def received(text: str) -> tuple[ReflectedRoute, ...]:
    """The answer to `show bgp … neighbors X received-routes json`."""
    try:
        shown = _Received.model_validate_json(text)
    except ValidationError as error:
        raise FrrError(Code.INTERNAL, f"FRR's answer about received routes cannot be read: {error}") from error
    if shown.warning is not None:
        raise FrrError(Code.INTERNAL, f"FRR does not say what it receives: {shown.warning}")
    return tuple(
        ReflectedRoute(prefix=it.prefix, next_hop=it.next_hop, local_preference=it.local_preference)
        for it in shown.routes.values()
    )


def selected(text: str, prefix: Prefix) -> str:
    """The answer to `show ip route X/32 json`, in words."""
    best = _best(text, prefix)
    if best is None:
        return f"FRR knows no route to {prefix}: it is missing in the kernel of this node"
    hops = " and ".join(" ".join(filter(None, (hop.address, hop.interface))) or "nowhere" for hop in best.hops)
    return f"FRR prefers a route to {prefix} of protocol {best.protocol}, metric {best.metric}, through {hops}"


def metric(text: str, prefix: Prefix) -> int | None:
    """The same: the metric of the route when it is the kernel's."""
    best = _best(text, prefix)
    return best.metric if best is not None and best.protocol == "kernel" else None


def _best(text: str, prefix: Prefix) -> _KernelRoute | None:
    try:
        shown = _KernelRoutes.validate_json(text)
    except ValidationError as error:
        raise FrrError(Code.INTERNAL, f"FRR's answer about a kernel route cannot be read: {error}") from error
    return next((route for route in shown.get(str(prefix), ()) if route.is_selected), None)


def sessions(text: str) -> Mapping[HostAddress, Session]:
    """The answer to `show bgp ipv4 unicast summary json`."""
    try:
        shown = _Family.model_validate_json(text)
    except ValidationError as error:
        raise FrrError(Code.INTERNAL, f"FRR's summary cannot be read: {error}") from error
    return {
        address: Session(peer.state == "Established", peer.last_reset or f"the session is {peer.state}")
        for address, peer in shown.peers.items()
    }
