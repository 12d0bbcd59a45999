"""What may leave the uplink of a routing node: frames with the NIC's own MAC address.

Nothing else is routed there. Should somebody bridge it, the provider's port security would close the port for all of
the node, so such frames are dropped here, and counted: `nft list counter netdev vmfabric foreign_mac`.
"""

from dataclasses import dataclass

from vmfabric.contract.addresses import Mac
from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.antispoof import Rule

COUNTER = "foreign_mac"
CHAIN_PREFIX = "uplink-"


@dataclass(frozen=True, slots=True)
class UplinkGuard:
    """The guard of one NIC."""

    interface: InterfaceName
    mac: Mac

    @property
    def chain(self) -> str:
        """A chain at its egress hook."""
        return CHAIN_PREFIX + self.interface

    @property
    def rule(self) -> Rule:
        """The only rule of the chain."""
        return Rule("foreign-mac", f'ether saddr != {self.mac} counter name "{COUNTER}" drop')
