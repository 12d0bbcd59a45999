"""A switching node: the switch that its VMs are at is a bridge that the uplink is a port of."""

from collections.abc import Iterator

from vmfabric.contract.desired import SwitchingNode
from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.actual import Actual, Interest, Link, LinkKind
from vmfabric.node_agent.domain.port import LINK_GROUP
from vmfabric.node_agent.domain.setup import Setup, without_carrier


def interest(node: SwitchingNode) -> Interest:
    """What has to be read of its kernel."""
    return Interest(held_by=frozenset({node.uplink, node.bridge}) if node.uplink else frozenset())


def setup(node: SwitchingNode, actual: Actual) -> Setup:
    """Nothing that two bridges do not do by themselves. How the uplink gets into the bridge is in `move.py`."""
    if node.uplink is None:
        return Setup(problems=tuple(_of_operators(node.bridge, actual)))
    uplink = actual.links.get(node.uplink)
    return Setup(problems=(without_carrier(uplink),) if uplink is not None and not uplink.carrier else ())


def _of_operators(name: InterfaceName, actual: Actual) -> Iterator[str]:
    """What is in the way of a bridge that is left to its operator."""
    bridge = actual.links.get(name)
    if bridge is None or bridge.kind != LinkKind.BRIDGE:
        yield (
            f"bridge {name} should be this node's own, since bridge.autosetup is false, and there is no such "
            "bridge here; make it, with the uplink in it, or set bridge.autosetup"
        )
        return
    if not bridge.up:
        yield f"bridge {name}, which is this node's own, is down: `ip link set {name} up`"
    uplinks = _uplinks(name, actual)
    if uplinks and not any(link.carrier for link in uplinks):
        yield without_carrier(*uplinks)


def _uplinks(bridge: InterfaceName, actual: Actual) -> list[Link]:
    """What leads out of it: NICs, bonds, VLANs; where there are none, whatever is no VM's of ours."""
    ports = [it for it in actual.links.values() if it.master == bridge and it.group != LINK_GROUP]
    return [it for it in ports if it.kind not in {LinkKind.TAP, LinkKind.VETH}] or ports
