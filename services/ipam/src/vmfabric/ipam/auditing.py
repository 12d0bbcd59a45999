"""`ip.audit`: ipam's addresses beside the scheduler's VMs, and what can be repaired of it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.admin import AddressRecord, ListOfCluster, Vms, VmState
from vmfabric.contract.envelope import Trace
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.explanation import AddressAudit, AuditAddresses, Finding
from vmfabric.contract.names import ClusterName, VmName
from vmfabric.contract.suspicion import is_suspicious
from vmfabric.ipam.domain import audit
from vmfabric.ipam.domain.audit import Difference
from vmfabric.ipam.domain.lease import Said, VmKey
from vmfabric.ipam.domain.leasing import Notice
from vmfabric.ipam.ports import Records
from vmfabric.ipam.writer import Writer
from vmfabric.runtime.clock import Clock
from vmfabric.runtime.desired import vms_in

_PAGE = 1000

ListVms = Callable[[ListOfCluster], Awaitable[Vms]]
"""Asks the scheduler: Refused with its sentence, TryAgain when it does not answer."""
ReadBucket = Callable[[ClusterName], Awaitable[Mapping[str, bytes]]]
"""The desired state of all VMs of a cluster."""

log = structlog.get_logger()


class Auditing:
    """Compares on demand; everything else in ipam believes its own store."""

    def __init__(
        self, writer: Writer, records: Records, clock: Clock, *, list_vms: ListVms, read_bucket: ReadBucket
    ) -> None:
        self._writer = writer
        self._records = records
        self._clock = clock
        self._list_vms = list_vms
        self._read_bucket = read_bucket

    async def audit(self, asked: AuditAddresses) -> AddressAudit:
        """Refused when the repair would release suspiciously many addresses."""
        # In this order: an address is held only after its VM has a record, and a VM's record goes last.
        records = await self._all_records(asked.cluster)
        wanted = await self._wanted(asked.cluster)
        vms = await self._all_vms(asked.cluster)
        if not records and not vms and all(it.spec.cluster != asked.cluster for it in await self._writer.current()):
            raise Refused(
                Code.UNKNOWN_CLUSTER,
                f"cluster {asked.cluster} has neither a pool nor a VM; cluster.list says which there are",
            )
        found = list(audit.differences(records, vms, wanted, self._clock.now()))
        if asked.repair:
            await self._repair(asked.cluster, found, records)
        return AddressAudit(
            cluster=asked.cluster,
            addresses=len(records),
            findings=tuple(Finding(vm=it.vm, about="ipam", is_right=False, sentence=it.sentence) for it in found),
        )

    async def _repair(
        self, cluster: ClusterName, found: Sequence[Difference], records: Sequence[AddressRecord]
    ) -> None:
        if any(it.overdue for it in found):
            await self._writer.end_holds()
        orphans = [it.orphan for it in found if it.orphan]
        if is_suspicious(len(orphans), of=len(records)):
            raise Refused(
                Code.CONFLICT,
                f"{len(orphans)} of {len(records)} addresses would be released, which looks like a scheduler that "
                "has lost its database. Nothing was changed: restore that database, or delete these VMs one by one",
            )
        for orphan in set(orphans):
            key = VmKey(cluster, orphan.vm)
            await self._writer.hear(Notice(Said.DELETING_UNWIRED, key, orphan.node, orphan.generation, Trace.new()))
            log.warning("audit.released", cluster=cluster, vm=orphan.vm, generation=orphan.generation)

    async def _all_records(self, cluster: ClusterName) -> list[AddressRecord]:
        found: list[AddressRecord] = []
        after: HostAddress | None = None
        while page := await self._records.records(cluster, after, _PAGE):
            found += page
            after = page[-1].address
        return found

    async def _all_vms(self, cluster: ClusterName) -> dict[VmName, VmState]:
        found: dict[VmName, VmState] = {}
        after: str | None = ""
        while after is not None:
            try:
                page = await self._list_vms(ListOfCluster(cluster=cluster, after=after))
            except Refused as error:
                if error.code is not Code.UNKNOWN_CLUSTER:
                    raise
                return found
            found |= {vm.vm: vm for vm in page.vms}
            after = page.next
        return found

    async def _wanted(self, cluster: ClusterName) -> set[VmName]:
        # A key that says `absent` too: it stays until the node has said that it let go.
        return {value.vm for value in vms_in(await self._read_bucket(cluster))}
