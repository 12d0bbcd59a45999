"""What a node's FRR should have: the one place where FRR's configuration is written.

FRR reads the node's kernel by itself (`redistribute kernel`). Three gates stand before an announcement: the route's
metric, which only the node-agent gives, the prefix lists of the cluster's pools, and the cluster's community.
https://docs.frrouting.org/en/stable-8.4/bgp.html, RFC 4456 for reflectors, RFC 4724 for graceful restart.
"""

from collections.abc import Iterator

from vmfabric.bgp_announcer.domain.lines import TOP, Line, Section
from vmfabric.contract.addresses import Community, Family, Prefix
from vmfabric.contract.dataplane import (
    EVACUATED_LOCAL_PREFERENCE,
    EVACUATED_METRIC,
    FORWARD_METRIC,
    GOING_DOWN_LOCAL_PREFERENCE,
    LOCAL_PREFERENCE,
    PREFERRED_LOCAL_PREFERENCE,
    PREFERRED_METRIC,
    RESTORED_LOCAL_PREFERENCE,
    RESTORED_METRIC,
    RESTORED_REFUGE_LOCAL_PREFERENCE,
    RESTORED_REFUGE_METRIC,
    ROUTE_METRIC,
)
from vmfabric.contract.desired import DesiredPools, FabricNode

GROUP = "vmfabric"
"""Our peer group, and the first part of the name of every list and route-map of ours."""

ROUTE_MAP_DELAY = 1
"""Seconds until FRR applies a changed list or route-map to the routes it has; its default is 5."""

DELAY = f"bgp route-map delay-timer {ROUTE_MAP_DELAY}"
"""Before any route-map: the first one that changes starts the timer, and no session begins while it runs. With FRR's
default, a node that boots would wait for 5 s."""

INWARD = f"route-map {GROUP}-in deny 10"
GRACEFUL_SHUTDOWN = "graceful-shutdown"
"""FRR's name for the community of RFC 8326, 65535:0. Its own `bgp graceful-shutdown` stays the operator's."""
PEER_GROUP = f"neighbor {GROUP} peer-group"

_FAMILIES = (Family.IPV4, Family.IPV6)

PREFERENCES = {
    ROUTE_METRIC: LOCAL_PREFERENCE,
    FORWARD_METRIC: LOCAL_PREFERENCE,
    PREFERRED_METRIC: PREFERRED_LOCAL_PREFERENCE,
    RESTORED_METRIC: RESTORED_LOCAL_PREFERENCE,
    EVACUATED_METRIC: EVACUATED_LOCAL_PREFERENCE,
    RESTORED_REFUGE_METRIC: RESTORED_REFUGE_LOCAL_PREFERENCE,
}
"""The local preference of a kernel route by its metric, which only the node-agent gives (docs/decisions/0002)."""


def wanted(node: FabricNode, pools: DesiredPools | None) -> tuple[Line, ...]:
    """Every line that FRR should have for vmfabric, in an order in which it can be entered."""
    return (
        Line(TOP, DELAY),
        *(line for family in _FAMILIES for line in _lists(node, family, pools)),
        *(line for family in _FAMILIES for line in _route_maps(node, family)),
        Line(TOP, INWARD),
        *_router(node),
    )


def router(asn: int) -> Section:
    """The section of the BGP instance."""
    return (f"router bgp {asn}",)


def family_section(asn: int, family: Family) -> Section:
    """The section of an address family."""
    return (*router(asn), f"address-family {family} unicast")


def kernel_map(family: Family) -> str:
    """The route-map between the kernel's routes and BGP."""
    return f"{GROUP}-kernel-{family}"


def _lists(node: FabricNode, family: Family, pools: DesiredPools | None) -> Iterator[Line]:
    word = "ip" if family is Family.IPV4 else "ipv6"
    name = f"{GROUP}-{family}"
    blocks = [block for block in pools.prefixes if Family.of(block) is family] if pools else []
    for block in sorted(blocks, key=str):
        length = pools.lengths.get(block, family.host_length) if pools else family.host_length
        yield Line(TOP, f"{word} prefix-list {name} permit {block}{_only(length, block, family)}")
    community = node.community[family]
    yield Line(TOP, f"bgp {_kind(community)}-list standard {name} permit {community}")


def _only(length: int, block: Prefix, family: Family) -> str:
    """The words that let a block's parts of this length through and no others."""
    if length == block.prefixlen:
        return ""  # `ge` has to be above the block's own length
    return f" ge {length}" if length == family.host_length else f" ge {length} le {length}"


def _kind(community: Community) -> str:
    return "community" if community.count(":") == 1 else "large-community"


def _route_maps(node: FabricNode, family: Family) -> Iterator[Line]:
    word = "ip" if family is Family.IPV4 else "ipv6"
    community = node.community[family]
    for number, (metric, preference) in enumerate(PREFERENCES.items(), start=1):
        inward = f"route-map {kernel_map(family)} permit {10 * number}"
        yield Line(TOP, inward)
        yield Line((inward,), f"match {word} address prefix-list {GROUP}-{family}")
        yield Line((inward,), f"match metric {metric}")
        yield from (Line((inward,), text) for text in _communities(community, node))
        yield Line((inward,), f"set local-preference {expected_preference(node, preference)}")
        yield Line((inward,), "set metric 0")
    outward = f"route-map {GROUP}-out-{family} permit 10"
    yield Line(TOP, outward)
    yield Line((outward,), f"match {_kind(community)} {GROUP}-{family}")


def expected_preference(node: FabricNode, preference: int) -> int:
    """What a route with this preference is announced with.

    A node that goes down is preferred to none, but for a VM that the node which it came from announces still.
    """
    is_last = node.graceful_shutdown and preference <= LOCAL_PREFERENCE
    return GOING_DOWN_LOCAL_PREFERENCE if is_last else preference


def _communities(community: Community, node: FabricNode) -> Iterator[str]:
    if not node.graceful_shutdown:
        yield f"set {_kind(community)} {community}"
    elif _kind(community) == "community":
        yield f"set community {community} {GRACEFUL_SHUTDOWN}"
    else:
        yield f"set large-community {community}"
        yield f"set community {GRACEFUL_SHUTDOWN}"


def _router(node: FabricNode) -> Iterator[Line]:
    section = router(node.asn)
    yield Line(TOP, section[0])
    # Graceful restart comes before the neighbours: changed later it resets their sessions.
    for text in (
        f"bgp router-id {node.address}",
        "bgp log-neighbor-changes",
        "no bgp ebgp-requires-policy",
        "no bgp default ipv4-unicast",
        "bgp graceful-restart",
        "no bgp network import-check",
    ):
        yield Line(section, text)
    yield Line(section, "bgp graceful-restart restart-time 120", is_shown=False)
    yield from _group(node, section)
    for family in _FAMILIES:
        yield from _family(node, family)
    # At last: a session that begins before FRR knows the kernel's routes tells a reflector that there are none, and
    # one that has kept them through a restart of ours (RFC 4724) drops them for a moment.
    for reflector in node.reflectors:
        yield Line(section, f"neighbor {reflector.address} peer-group {GROUP}")


def _group(node: FabricNode, section: Section) -> Iterator[Line]:
    yield Line(section, PEER_GROUP)
    yield Line(section, f"neighbor {GROUP} remote-as {node.asn}")
    if node.password is not None:
        yield Line(section, f"neighbor {GROUP} password {node.password}")
    if node.bfd:
        yield Line(section, f"neighbor {GROUP} bfd")
    yield Line(section, f"neighbor {GROUP} update-source {node.address}")
    yield Line(section, f"neighbor {GROUP} advertisement-interval 0")
    yield Line(section, f"neighbor {GROUP} timers {node.timers.keepalive} {node.timers.hold}")
    yield Line(section, f"neighbor {GROUP} timers connect {node.timers.connect}")


def _family(node: FabricNode, family: Family) -> Iterator[Line]:
    section = family_section(node.asn, family)
    yield Line(section, f"redistribute kernel route-map {kernel_map(family)}")
    yield Line(section, f"neighbor {GROUP} activate")
    yield Line(section, f"neighbor {GROUP} next-hop-self")
    yield Line(section, f"neighbor {GROUP} send-community all", is_shown=False)
    # None of it is used; it is what an audit of another node asks for.
    yield Line(section, f"neighbor {GROUP} soft-reconfiguration inbound")
    yield Line(section, f"neighbor {GROUP} route-map {GROUP}-in in")
    yield Line(section, f"neighbor {GROUP} route-map {GROUP}-out-{family} out")
