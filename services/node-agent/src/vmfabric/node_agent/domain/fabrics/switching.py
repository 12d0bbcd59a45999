"""A switching node: the switch that its VMs are at is a bridge that the uplink is a port of."""

from vmfabric.contract.desired import SwitchingNode
from vmfabric.node_agent.domain.actual import Actual, Interest, LinkKind
from vmfabric.node_agent.domain.setup import Setup, without_carrier


def interest(node: SwitchingNode) -> Interest:
    """What has to be read of its kernel."""
    return Interest(held_by=frozenset({node.uplink, node.bridge}) if node.uplink else frozenset())


def setup(node: SwitchingNode, actual: Actual) -> Setup:
    """Nothing that two bridges do not do by themselves. How the uplink gets into the bridge is in `move.py`."""
    bridge = actual.links.get(node.bridge)
    if node.uplink is None and (bridge is None or bridge.kind != LinkKind.BRIDGE):
        sentence = (
            f"bridge {node.bridge} should be this node's own, since bridge.autosetup is false, and there is no such "
            "bridge here; make it, with the uplink in it, or set bridge.autosetup"
        )
        return Setup(problems=(sentence,))
    uplink = actual.links.get(node.uplink) if node.uplink else None
    return Setup(problems=(without_carrier(uplink),) if uplink is not None and not uplink.carrier else ())
