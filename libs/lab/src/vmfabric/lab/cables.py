"""What networks are made of: bridges in the switch's namespace, a veth from each host to one of them, addresses."""

import json
from ipaddress import IPv4Address, IPv6Address, ip_interface

from vmfabric.lab.programs import run
from vmfabric.lab.topology import SWITCH, Topology

UPLINK = "eno1"
"""The NIC of a host that is on a physical network or on a provider's."""

ROUTER_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    # Packets between two hosts of one network leave by the link they came on; nobody should be told to take a short
    # cut to an address that may move.
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
}


def data_port(host: str) -> str:
    """The switch's port that leads to the host's link on its fabric, physical or provider's network."""
    return f"f-{host}"


def management_port(host: str) -> str:
    """The switch's port that leads to the host's management link."""
    return f"m-{host}"


def add_bridge(topology: Topology, bridge: str, mtu: int) -> None:
    """A bridge in the switch's namespace."""
    switch = topology.namespace(SWITCH)
    run("ip", "-n", switch, "link", "add", bridge, "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
    run("ip", "-n", switch, "link", "set", bridge, "mtu", str(mtu), "up")


def plug(topology: Topology, host: str, link: str, port: str, *, bridge: str, mtu: int) -> None:
    """A cable from a host to a bridge of the switch."""
    namespace, switch = topology.namespace(host), topology.namespace(SWITCH)
    run("ip", "-n", namespace, "link", "add", link, "type", "veth", "peer", "name", port, "netns", switch)
    run("ip", "-n", switch, "link", "set", port, "master", bridge, "mtu", str(mtu), "up")
    run("ip", "-n", namespace, "link", "set", link, "mtu", str(mtu), "up")


def address(namespace: str, link: str, own: IPv4Address | IPv6Address, length: int) -> None:
    """Give a host an address."""
    # Addresses of the topology are unique by validation: no second to wait for duplicate detection.
    nodad = ("nodad",) if own.version == 6 else ()
    run("ip", "-n", namespace, "address", "add", str(ip_interface((own, length))), "dev", link, *nodad)


def route(namespace: str, destination: str, *by: str) -> None:
    """Give a host a route, which it may have already."""
    run("ip", "-n", namespace, "route", "replace", destination, *by)


def mac(namespace: str, link: str) -> str:
    """The MAC address of a host's link."""
    (row,) = json.loads(run("ip", "-n", namespace, "-json", "link", "show", "dev", link))
    return str(row["address"])
