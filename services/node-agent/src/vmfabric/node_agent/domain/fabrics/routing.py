"""A routing node: what comes for its VMs is routed into a bridge of their own, and no frame of theirs gets out."""

from collections.abc import Iterator, Mapping
from ipaddress import ip_interface

from vmfabric.contract.addresses import Family, Prefix
from vmfabric.contract.cluster import Upstream
from vmfabric.contract.dataplane import SUBNET_METRIC, UNASSIGNED_METRIC
from vmfabric.contract.desired import RoutingNode
from vmfabric.node_agent.domain.actual import NOWHERE, Actual, HostRoute, Interest, Link, Proxy
from vmfabric.node_agent.domain.link_guard import no_redirects, only_from
from vmfabric.node_agent.domain.naming import bridge_mac
from vmfabric.node_agent.domain.port import SYSCTLS
from vmfabric.node_agent.domain.setup import FORWARDING, OwnBridge, Setup, Uplink, without_carrier

_LINK_LOCAL = ip_interface("fe80::1/64")
"""Of the bridge: the kernel asks for neighbours from it."""

_NODE: Mapping[str, int] = {
    **FORWARDING,
    # Both are combined with the link's own by the kernel: the one by or, the other by the larger.
    "ipv4/conf/all/send_redirects": 0,
    "ipv4/conf/all/arp_ignore": 0,
}
_BRIDGE: Mapping[str, int] = {**SYSCTLS, "ipv4/send_redirects": 0, "ipv4/arp_ignore": 0}
"""arp_ignore 0: the node's address, their gateway, is on another link and is answered for here all the same.
send_redirects 0: one VM reaches the other through the node, in and out of the same link."""
_UPLINK: Mapping[str, int] = {"ipv4/forwarding": 1, "ipv6/forwarding": 1}


def interest(node: RoutingNode) -> Interest:
    """What has to be read of its kernel."""
    return Interest(sysctls=frozenset(_sysctls(node)))


def setup(node: RoutingNode, actual: Actual) -> Setup:
    """What it should have."""
    on_link = node.upstream is Upstream.ON_LINK
    uplink = actual.links.get(node.uplink)
    own = frozenset() if node.ipv6 is None else frozenset({node.ipv6})
    behind: frozenset[Prefix] = frozenset(node.subnets) | {it.network for it in own}
    return Setup(
        sysctls=_sysctls(node) if uplink else _NODE,
        bridge=OwnBridge(
            interface=node.bridge,
            mac=bridge_mac(node.cluster, node.node),
            addresses=own | {_LINK_LOCAL},
            sysctls=_BRIDGE,
            guard=no_redirects(node.bridge),
            routes=frozenset(_subnet_routes(node, uplink)),
        ),
        uplink=_uplink(uplink, on_link=on_link) if uplink else None,
        # Its address for the VMs is on the bridge, and the provider asks for it on the NIC.
        proxies=frozenset(Proxy(it.ip, node.uplink) for it in own) if on_link and uplink else frozenset(),
        answers_on=node.uplink if on_link and uplink else None,
        answers_for=behind,
        problems=tuple(_problems(node, uplink)),
    )


def _subnet_routes(node: RoutingNode, uplink: Link | None) -> Iterator[HostRoute]:
    """Without them, what comes for nobody would go back to the provider. In IPv6 nobody is asked for either: a scan
    of a /64 would fill the kernel's table of neighbours (RFC 6583).
    """
    for subnet in node.subnets:
        yield HostRoute(subnet, NOWHERE if Family.of(subnet) is Family.IPV6 else node.bridge, SUBNET_METRIC)
    if node.ipv6 is not None and not _reaches_some(uplink, node.ipv6.network):
        yield HostRoute(node.ipv6.network, NOWHERE, UNASSIGNED_METRIC)


def _reaches_some(uplink: Link | None, network: Prefix) -> bool:
    """Whether others than VMs have addresses of the network: the provider's router, say."""
    own = frozenset() if uplink is None else uplink.addresses
    return any(it.version == network.version and it.network.overlaps(network) for it in own)


def _sysctls(node: RoutingNode) -> Mapping[str, int]:
    if node.upstream is not Upstream.ON_LINK:
        return _NODE
    # The kernel would wait for up to 0.8 s, to let the owner of an address answer first; there is no other.
    return {**_NODE, **{f"{family}/neigh/{node.uplink}/proxy_delay": 0 for family in ("ipv4", "ipv6")}}


def _uplink(link: Link, *, on_link: bool) -> Uplink | None:
    if link.mac is None:
        return None
    return Uplink(
        sysctls={**_UPLINK, "ipv6/proxy_ndp": int(on_link)},
        guard=only_from(link.name, link.mac),
    )


def _problems(node: RoutingNode, uplink: Link | None) -> Iterator[str]:
    if uplink is None:
        yield f"the node's uplink should be {node.uplink}, and there is no such link here; mend `uplink` of the node"
    elif not any(it.ip == node.address for it in uplink.addresses):
        found = ", ".join(sorted(map(str, uplink.addresses))) or "none"
        yield (
            f"the node's address {node.address}, which is its VMs' gateway, should be on its uplink {node.uplink}, "
            f"which has {found}; mend `address` or `uplink` of the node, or give the NIC its address"
        )
    elif not uplink.carrier:
        yield without_carrier(uplink)
    elif uplink.master is not None:
        yield (
            f"the uplink {node.uplink} is a port of {uplink.master}, and the provider must see no MAC address but "
            f"the NIC's: `ip link set {node.uplink} nomaster`"
        )
