"""What may leave the links of a routing node, its VMs' ports aside.

Out of the NIC: frames with its own MAC address. Nothing else is routed there; should somebody bridge it, the port
security of the provider would close the port for all of the node. So such frames are dropped here, and counted:
`nft list counter netdev vmfabric foreign_mac`.

Out of the bridge: no IPv6 redirect. One VM reaches the other through the node, in and out of the same link, which the
kernel takes for a detour (RFC 4861, 8.2), and for IPv6 it cannot be told otherwise.
"""

from dataclasses import dataclass

from vmfabric.contract.addresses import Mac
from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.antispoof import Rule

COUNTER = "foreign_mac"
CHAIN_PREFIX = "egress-"


@dataclass(frozen=True, slots=True)
class EgressGuard:
    """A chain with one rule at the egress hook of a link."""

    interface: InterfaceName
    words: str
    """What it lets out."""
    rule: Rule

    @property
    def chain(self) -> str:
        """Its name."""
        return CHAIN_PREFIX + self.interface


def only_from(interface: InterfaceName, mac: Mac) -> EgressGuard:
    """Of a NIC with this MAC address."""
    rule = Rule("foreign-mac", f'ether saddr != {mac} counter name "{COUNTER}" drop')
    return EgressGuard(interface, f"only frames from {mac}", rule)


def no_redirects(interface: InterfaceName) -> EgressGuard:
    """Of a bridge whose ports are isolated."""
    return EgressGuard(interface, "no IPv6 redirects", Rule("redirect", "icmpv6 type nd-redirect drop"))
