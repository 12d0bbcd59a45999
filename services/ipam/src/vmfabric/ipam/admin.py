"""Which request goes to which function."""

from typing import Any

from vmfabric.contract.addresses import HostAddress, parse_host
from vmfabric.contract.addressing import (
    AskHistory,
    AskUsage,
    ImportAddresses,
    ListFree,
    ReleaseAddresses,
    ReserveAddresses,
)
from vmfabric.contract.admin import (
    Addresses,
    ApplyNetwork,
    ApplyPool,
    DeleteNetwork,
    DeletePool,
    ExplainAddress,
    Explanation,
    List,
    ListOfCluster,
    Networks,
)
from vmfabric.contract.errors import Code, Refused
from vmfabric.ipam.applying import Applying
from vmfabric.ipam.domain.history import verdict
from vmfabric.ipam.domain.pools import place
from vmfabric.ipam.importing import Importing
from vmfabric.ipam.named import check_cluster
from vmfabric.ipam.ports import Records
from vmfabric.ipam.reporting import Reporting
from vmfabric.ipam.reserving import Reserving
from vmfabric.ipam.writer import Writer
from vmfabric.runtime.micro import Endpoint

_HISTORY = 100


class Administration:
    """Answers operators."""

    def __init__(
        self,
        writer: Writer,
        records: Records,
        *,
        applying: Applying,
        reserving: Reserving,
        importing: Importing,
        reporting: Reporting,
    ) -> None:
        self._writer = writer
        self._applying = applying
        self._reserving = reserving
        self._importing = importing
        self._reporting = reporting
        self._records = records

    def endpoints(self) -> tuple[Endpoint[Any], ...]:
        """The page of this service."""
        return (
            Endpoint("network.apply", ApplyNetwork, self._applying.apply_network, "make a network so"),
            Endpoint("network.delete", DeleteNetwork, self._applying.delete_network, "forget a network"),
            Endpoint("network.list", List, self.list_networks, "all networks"),
            Endpoint("pool.apply", ApplyPool, self._applying.apply_pool, "make a pool so"),
            Endpoint("pool.delete", DeletePool, self._applying.delete_pool, "forget a pool"),
            Endpoint("pool.list", ListOfCluster, self._reporting.list_pools, "pools and how full they are"),
            Endpoint("pool.free", ListFree, self._reporting.list_free, "where a VM can still have an address"),
            Endpoint("pool.usage", AskUsage, self._reporting.report_usage, "how full pools are, and for how long"),
            Endpoint("ip.list", ListOfCluster, self.list_addresses, "addresses that are held, rest, or are reserved"),
            Endpoint("ip.history", AskHistory, self._reporting.tell_history, "who had an address when"),
            Endpoint("ip.reserve", ReserveAddresses, self._reserving.reserve, "keep addresses for somebody"),
            Endpoint("ip.release", ReleaseAddresses, self._reserving.release, "keep addresses for nobody any more"),
            Endpoint("ip.import", ImportAddresses, self._importing.import_rows, "reserve what is in use already"),
            Endpoint("ip.explain", ExplainAddress, self.explain, "what is known of an address"),
        )

    async def list_networks(self, _request: List) -> Networks:
        """All networks, in the order of their names."""
        stock = await self._writer.current()
        return Networks(networks=tuple(stock.networks[name] for name in sorted(stock.networks)))

    async def list_addresses(self, request: ListOfCluster) -> Addresses:
        """Addresses that are held, rest or are reserved, in order."""
        check_cluster(request.cluster, await self._writer.current())
        after = _address(request.after) if request.after else None
        found = await self._records.records(request.cluster, after, request.limit + 1)
        page = tuple(found[: request.limit])
        return Addresses(addresses=page, next=str(page[-1].address) if len(found) > len(page) else None)

    async def explain(self, request: ExplainAddress) -> Explanation:
        """What is known of an address, from the network it lies in to who had it."""
        stock = await self._writer.current()
        address = stock.named(request.address)
        found = place(address, stock.networks, stock.pools, stock.withheld)
        record = await self._records.record(address)
        return Explanation(
            address=address,
            verdict=verdict(address, found, record),
            network=found.network.name if found.network else None,
            pool=found.pool.name if found.pool else None,
            record=record,
            history=tuple(await self._records.history(request.address, _HISTORY)),
        )


def _address(text: str) -> HostAddress:
    try:
        return parse_host(text)
    except ValueError as error:
        raise Refused(
            Code.INVALID_REQUEST, f"after is {text!r}, which is not an address; give the `next` of the last page"
        ) from error
