"""Prefixes of which no VM can have an address that others reach (RFC 6890)."""

from collections.abc import Mapping
from ipaddress import ip_network

from vmfabric.contract.addresses import Prefix, lies_inside
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.pool import NetworkKind, NetworkSpec

SPECIAL: Mapping[Prefix, str] = {
    ip_network("0.0.0.0/8"): "of a host that has no address yet",
    ip_network("127.0.0.0/8"): "loopback",
    ip_network("169.254.0.0/16"): "link-local",
    ip_network("224.0.0.0/4"): "multicast",
    ip_network("255.255.255.255/32"): "broadcast",
    ip_network("240.0.0.0/4"): "reserved",
    ip_network("::/128"): "of a host that has no address yet",
    ip_network("::1/128"): "loopback",
    ip_network("::ffff:0:0/96"): "IPv4-mapped",
    ip_network("100::/64"): "discarded",
    ip_network("fe80::/10"): "link-local",
    ip_network("ff00::/8"): "multicast",
}
"""What each is for."""


def check_usable(spec: NetworkSpec) -> None:
    """Refused when VMs could not use what it has. A container may hold such prefixes beside others."""
    for prefix, what in SPECIAL.items():
        is_in_it = lies_inside(spec.prefix, prefix)
        if is_in_it or (spec.kind is NetworkKind.ACTIVE and spec.prefix.overlaps(prefix)):
            raise Refused(
                Code.INVALID_REQUEST,
                f"network {spec.name} would be {spec.prefix}, which {'lies in' if is_in_it else 'contains'} {prefix} "
                f"({what}); no VM can be reached there, choose a prefix that hosts can have",
            )
