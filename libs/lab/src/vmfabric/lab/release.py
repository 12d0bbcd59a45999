"""How a migration's target asks the source to let go of a guest: `lab.guest.release.<cluster>.<vm>.<source>.<N>`.

N is the generation of the VM on its target: an old question is known as one.
"""

from vmfabric.contract.names import ClusterName, NodeName, VmName
from vmfabric.contract.subjects import VM_ON_NODE, Template

_TEMPLATE = Template("lab.guest.release", VM_ON_NODE)


def subject(cluster: ClusterName, vm: VmName, source: NodeName, generation: int) -> str:
    """What is asked in one migration."""
    return f"{_TEMPLATE.render({'cluster': cluster, 'vm': vm, 'node': source})}.{generation}"


def pattern(cluster: ClusterName, source: NodeName) -> str:
    """All that a source is asked."""
    return f"{_TEMPLATE.pattern({'cluster': cluster, 'node': source})}.*"


def read(asked: str) -> tuple[ClusterName, VmName, int]:
    """Cluster, VM and generation of a question."""
    _lab, _guest, _release, cluster, vm, _source, generation = asked.split(".")
    return cluster, vm, int(generation)
