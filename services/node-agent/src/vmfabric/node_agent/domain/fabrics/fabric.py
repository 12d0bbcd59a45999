"""Which network type a node has."""

from typing import assert_never

from vmfabric.contract.desired import FabricNode, RoutingNode, SwitchingNode
from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.actual import Actual, Interest
from vmfabric.node_agent.domain.fabrics import routing, switching
from vmfabric.node_agent.domain.naming import BRIDGE_ALIAS
from vmfabric.node_agent.domain.setup import FORWARDING, Setup

Node = FabricNode | SwitchingNode | RoutingNode


def interest(node: Node | None) -> Interest:
    """What has to be read of its kernel. None: its values are not known yet, and it may be in an ip-fabric."""
    match node:
        case None | FabricNode():
            return Interest(sysctls=frozenset(FORWARDING))
        case SwitchingNode():
            return switching.interest(node)
        case RoutingNode():
            return routing.interest(node)
        case _:
            assert_never(node)


def setup(node: Node | None, actual: Actual) -> Setup:
    """What it should have besides its VMs' ports."""
    match node:
        case None | FabricNode():
            return Setup(sysctls=FORWARDING)
        case SwitchingNode():
            return switching.setup(node, actual)
        case RoutingNode():
            return routing.setup(node, actual)
        case _:
            assert_never(node)


def bridges_of(node: Node | None, actual: Actual) -> frozenset[InterfaceName]:
    """The bridge that its VMs are in, if they are in one. While the node's values are not known, whatever we made."""
    if node is None:
        return frozenset(link.name for link in actual.links.values() if link.alias == BRIDGE_ALIAS)
    return frozenset({node.bridge}) if isinstance(node, SwitchingNode | RoutingNode) else frozenset()


def trunk_of(node: Node | None) -> InterfaceName | None:
    """The uplink of it that is a port of the bridge that its VMs are in."""
    return node.uplink if isinstance(node, SwitchingNode) else None
