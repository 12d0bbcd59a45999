"""What can be watched: allocations, batches, commits, and how full the pools are."""

from collections.abc import Callable, Iterator

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from vmfabric.ipam.domain.changes import Changes
from vmfabric.ipam.domain.stock import Stock

_allocated = Counter("vmfabric_ipam_allocated_addresses", "Addresses given to VMs", ["pool"])
_released = Counter("vmfabric_ipam_released_addresses", "Addresses that came to rest", ["pool"])
batch_size = Histogram(
    "vmfabric_ipam_batch_notices", "Notices written in one transaction", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
commit_seconds = Histogram(
    "vmfabric_ipam_commit_seconds", "Time of one transaction", buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.5)
)


def count(changes: Changes) -> None:
    """Count what was written."""
    for holding in changes.new_holdings:
        _allocated.labels(holding.pool).inc()
    for holding in changes.holdings:
        if holding.rests_until is not None:
            _released.labels(holding.pool).inc()


class StockCollector(Collector):
    """How full each pool is, read when somebody asks. IPv6 counts lose their last digits as floating point."""

    def __init__(self, stock: Callable[[], Stock | None]) -> None:
        self._stock = stock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Nothing while the stock has to be built anew."""
        stock = self._stock()
        if stock is None:
            return
        labels = ["cluster", "pool", "family"]
        free = GaugeMetricFamily("vmfabric_ipam_free_addresses", "Addresses that can be given", labels=labels)
        resting = GaugeMetricFamily("vmfabric_ipam_resting_addresses", "Addresses in quarantine", labels=labels)
        for pool in list(stock):
            for family in pool.families:
                named = [pool.spec.cluster, pool.spec.name, family]
                free.add_metric(named, pool.free(family))
                resting.add_metric(named, pool.resting(family))
        yield free
        yield resting
