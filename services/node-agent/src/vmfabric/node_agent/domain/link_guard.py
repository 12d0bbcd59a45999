"""What may pass the links of a routing node, its VMs' ports aside.

Out of the NIC: frames with its own MAC address. Nothing else is routed there; should somebody bridge it, the port
security of the provider would close the port for all of the node. So such frames are dropped here, and counted:
`nft list counter netdev vmfabric foreign_mac`.

Out of the bridge: no IPv6 redirect. One VM reaches the other through the node, in and out of the same link, which the
kernel takes for a detour (RFC 4861, 8.2), and for IPv6 it cannot be told otherwise.

In by the NIC: nothing for a DHCP server. The guests are answered from the NIC's address, so dnsmasq listens there
too, and takes what comes for a guest's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from vmfabric.contract.addresses import Mac
from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.antispoof import Rule

COUNTER = "foreign_mac"


class Hook(StrEnum):
    """Where frames come by. The chain of a link is named after both."""

    EGRESS = "egress"
    INGRESS = "ingress"

    def chain(self, interface: InterfaceName) -> str:
        """The chain of a link at it."""
        return f"{self}-{interface}"


@dataclass(frozen=True, slots=True)
class LinkGuard:
    """Chains with one rule at the hooks of a link."""

    interface: InterfaceName
    words: str
    """What it lets pass."""
    rules: Mapping[Hook, Rule]

    @property
    def marks(self) -> frozenset[tuple[Hook, str]]:
        """Its rules, as they are read back."""
        return frozenset((hook, rule.comment) for hook, rule in self.rules.items())


def only_from(interface: InterfaceName, mac: Mac) -> LinkGuard:
    """Of a NIC with this MAC address."""
    foreign = Rule("foreign-mac", f'ether saddr != {mac} counter name "{COUNTER}" drop')
    to_server = Rule("to-dhcp-server", "udp dport 67 drop")
    words = f"only frames from {mac} out of {interface}, and nothing for a DHCP server in"
    return LinkGuard(interface, words, {Hook.EGRESS: foreign, Hook.INGRESS: to_server})


def no_redirects(interface: InterfaceName) -> LinkGuard:
    """Of a bridge whose ports are isolated."""
    redirect = Rule("redirect", "icmpv6 type nd-redirect drop")
    return LinkGuard(interface, f"no IPv6 redirects out of {interface}", {Hook.EGRESS: redirect})
