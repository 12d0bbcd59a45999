"""When a node may be deleted, and what is in the way until then."""

from collections.abc import Sequence

from vmfabric.contract.admin import NodeState
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.names import NodeName, VmName

_NAMED = 5


def check_deletable(
    node: NodeName,
    state: NodeState,
    *,
    vms: Sequence[VmName],
    strays: Sequence[VmName],
    left: Sequence[VmName],
    is_gone: bool,
) -> None:
    """Refused when it has VMs, or may have some, or is heard. `left` are those that it has not let go."""
    if vms:
        raise Refused(
            Code.IN_USE,
            f"node {node} has {_counted(vms)}; node.drain moves them while it runs, node.evacuate when it is lost",
        )
    if strays:
        raise Refused(
            Code.IN_USE,
            f"the bucket wants {_counted(strays)} on node {node} that the scheduler does not know; node.audit with "
            "repair removes them",
        )
    if state is NodeState.JOINED:
        raise Refused(
            Code.CONFLICT,
            f"node {node} is heard: stop its services, and delete it when node.list says that it is lost",
        )
    if left and not is_gone:
        raise Refused(
            Code.CONFLICT,
            f"node {node} was evacuated, and has not let go of {_counted(left)}: start it, and it does. If it will "
            "never run again as it was, ask with gone: true",
        )


def _counted(vms: Sequence[VmName]) -> str:
    more = f" and {len(vms) - _NAMED} more" if len(vms) > _NAMED else ""
    return f"{len(vms)} VM{'s' if len(vms) > 1 else ''} ({', '.join(vms[:_NAMED])}{more})"
