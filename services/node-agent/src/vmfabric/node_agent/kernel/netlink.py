"""The calls of pyroute2 that we use to change things. It makes them at run time and so has no types for them."""

from typing import Any, Protocol, cast

from pyroute2.iproute.linux import IPRoute


class Netlink(Protocol):
    """A NETLINK_ROUTE socket. Every call raises NetlinkError with what the kernel said."""

    def link(self, command: str, **values: Any) -> Any:
        """RTM_NEWLINK and its like."""
        ...

    def addr(self, command: str, **values: Any) -> Any:
        """RTM_NEWADDR and its like."""
        ...

    def route(self, command: str, **values: Any) -> Any:
        """RTM_NEWROUTE and its like."""
        ...

    def brport(self, command: str, **values: Any) -> Any:
        """RTM_SETLINK of a port of a bridge."""
        ...

    def vlan_filter(self, command: str, **values: Any) -> Any:
        """RTM_SETLINK and RTM_DELLINK of the VLANs of a port."""
        ...

    def neigh(self, command: str, **values: Any) -> Any:
        """RTM_NEWNEIGH and its like."""
        ...

    def close(self) -> None:
        """Close the socket."""
        ...


def open_netlink() -> Netlink:
    """In the namespace of the caller."""
    return cast("Netlink", IPRoute())
