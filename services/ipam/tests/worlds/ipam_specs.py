"""Short words for networks and pools."""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from vmfabric.contract.addresses import Prefix
from vmfabric.contract.pool import AddressRange, NetworkKind, NetworkSpec, PoolSpec


def a_network(
    prefix: str = "10.0.0.0/8",
    name: str = "net",
    *,
    gateway: str | None = None,
    vlan: int | None = None,
    segment: bool = False,
) -> NetworkSpec:
    router = ip_address(gateway) if gateway else None
    return NetworkSpec(name=name, prefix=ip_network(prefix), gateway=router, vlan=vlan, segment=segment)


def a_container(prefix: str, name: str = "all") -> NetworkSpec:
    return NetworkSpec(name=name, prefix=ip_network(prefix), kind=NetworkKind.CONTAINER)


def a_pool(
    *blocks: str,
    name: str = "web",
    cluster: str = "msk",
    exclude: tuple[str, ...] = (),
    ranges: Mapping[str, str] | None = None,
    quarantine: int = 300,
    ipv6_length: int = 128,
) -> PoolSpec:
    """A range is written as `10.0.0.2-10.0.0.9`, several of one node with commas between."""
    return PoolSpec(
        name=name,
        cluster=cluster,
        blocks=prefixes(*blocks),
        exclude=prefixes(*exclude),
        ranges={node: tuple(a_range(each) for each in text.split(",")) for node, text in (ranges or {}).items()},
        quarantine_seconds=quarantine,
        ipv6_length=ipv6_length,
    )


def a_range(text: str) -> AddressRange:
    first, _, last = text.partition("-")
    return AddressRange(first=ip_address(first), last=ip_address(last or first))


def prefixes(*texts: str) -> tuple[Prefix, ...]:
    return tuple(ip_network(text) for text in texts)


def by_name(*specs: PoolSpec) -> dict[str, PoolSpec]:
    return {spec.name: spec for spec in specs}
