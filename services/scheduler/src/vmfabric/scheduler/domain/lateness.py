"""Why a node's answer is late, as far as the scheduler has heard."""

from vmfabric.contract.admin import NodeState
from vmfabric.contract.names import NodeName
from vmfabric.scheduler.domain.changes import Heard


def silent_since(heard: Heard) -> str:
    """Of a node that is lost."""
    return f"has not been heard since {heard.at:%Y-%m-%d %H:%M:%S} UTC" if heard.at is not None else "is not heard"


def known_reason(node: NodeName, heard: Heard, of_vm: str | None) -> str | None:
    """A sentence; `of_vm` is what the node said last of the VM. None when nobody has named a reason."""
    if heard.state is NodeState.LOST:
        return f"{node} {silent_since(heard)}"
    problem = heard.problem or of_vm
    return None if problem is None else f"{node} says: {problem}"
