"""Have a node try at once what it has given up for a while.

| subject | request | answer | service |
| --- | --- | --- | --- |
| `node.retry` | RetryNode | Retried | scheduler, which asks the node-agent |
| `iface.retry.<cluster>.<node>` | RetryOnNode | Retried | node-agent of the node |
"""

from vmfabric.contract.model import Part, Request
from vmfabric.contract.names import ClusterName, NodeName
from vmfabric.contract.subjects import NODE, Template

IFACE_RETRY = Template("iface.retry", NODE)


class RetryNode(Request):
    """Somebody has mended what was in the node's way: its node-agent does not wait any longer for its next try."""

    cluster: ClusterName
    node: NodeName


class RetryOnNode(Request):
    """Do not wait any longer for your next try."""


class Retried(Part):
    """The try begins; `problem` of `node.list` says how it ended."""

    cluster: ClusterName
    node: NodeName
    sentence: str
    """What is tried now, or that nothing was waited for."""
