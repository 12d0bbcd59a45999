"""What an operator names has to be there."""

from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.names import ClusterName
from vmfabric.ipam.domain.stock import Stock


def check_cluster(name: ClusterName | None, stock: Stock) -> None:
    """Refused with the names of the clusters that have pools; ipam knows no others. None: all of them."""
    known = sorted({pool.spec.cluster for pool in stock})
    if name is None or name in known:
        return
    there = f"the clusters that have pools are: {', '.join(known)}" if known else "there is no pool yet"
    raise Refused(Code.UNKNOWN_CLUSTER, f"no pool is of cluster {name}; {there}")
