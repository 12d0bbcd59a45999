"""Settings from the environment."""

from vmfabric.runtime.settings import NodeSettings


class NodeAgentSettings(NodeSettings):
    """What the node-agent needs; see the README."""

    resync_seconds: float = 3.0
    """How long a change that nobody announced may go unnoticed."""
    heartbeat_seconds: float = 2.0
