"""What can be watched: how VMs end, how long each step takes, how full the desk is."""

from prometheus_client import Counter, Gauge, Histogram

from vmfabric.contract.model import Event
from vmfabric.contract.vm import VmDeleted, VmFailed, VmPlaced, VmReady

nodes = Gauge("vmfabric_nodes", "Nodes by state", ["state"])
batch_size = Histogram(
    "vmfabric_scheduler_batch_jobs", "Jobs done in one transaction", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
commit_seconds = Histogram(
    "vmfabric_scheduler_commit_seconds", "Time of one transaction", buckets=(0.001, 0.002, 0.005, 0.01, 0.05, 0.5, 5)
)
overdue = Counter("vmfabric_scheduler_overdue", "Answers that were late", ["phase"])
_placed = Counter("vmfabric_scheduler_placed_vms", "VMs that got a node", ["cluster"])
_deleted = Counter("vmfabric_scheduler_deleted_vms", "VMs of which nothing is left", ["cluster"])
_failed = Counter("vmfabric_scheduler_failed_vms", "Requests that failed", ["step", "code"])
_ready_seconds = Histogram("vmfabric_scheduler_ready_seconds", "From vm.requested to the last step", ["cluster"])


def count(event: Event) -> None:
    """Count what is said."""
    match event:
        case VmPlaced():
            _placed.labels(event.cluster).inc()
        case VmReady():
            steps = event.steps_ms
            _ready_seconds.labels(event.cluster).observe(max(steps.wired, steps.announced or 0) / 1000)
        case VmDeleted():
            _deleted.labels(event.cluster).inc()
        case VmFailed():
            _failed.labels(event.step, event.code).inc()
        case _:
            return
