"""Who has which address, as ipam says, beside which VM has which address, as the scheduler says."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.admin import AddressRecord, VmPhase, VmState
from vmfabric.contract.names import VmName
from vmfabric.ipam.domain.history import Standing

IN_FLUX = timedelta(minutes=1)
"""What is younger may be on its way from one service to the other."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the two do not agree on."""

    vm: VmName
    sentence: str
    orphan: AddressRecord | None = None
    """Nobody needs it, so it can be released."""


def differences(
    records: Sequence[AddressRecord], vms: Mapping[VmName, VmState], wanted: Collection[VmName], now: datetime
) -> Iterator[Difference]:
    """Of one cluster. `wanted`: VMs that any node should have, by the bucket of desired state."""
    held = [record for record in records if record.state != Standing.QUARANTINED]
    for record in held:
        if now - record.since > IN_FLUX:
            yield from _of_record(record, vms.get(record.vm), record.vm in wanted)
    owners = {record.address: record.vm for record in held}
    for vm in vms.values():
        if vm.phase is VmPhase.READY and now - vm.since > IN_FLUX:
            yield from _of_vm(vm, owners)


def _of_record(record: AddressRecord, vm: VmState | None, is_wanted: bool) -> Iterator[Difference]:
    has = f"{record.address} is {record.state} for {record.vm}, generation {record.generation}"
    if vm is None and is_wanted:
        yield Difference(
            record.vm,
            f"{has}; the scheduler knows no such VM, but the bucket wants it on a node: the scheduler's database is "
            f"older than what it has done. See node.audit of {record.node}",
        )
    elif vm is None:
        yield Difference(
            record.vm,
            f"{has}; the scheduler knows no such VM and no node should have it: ipam has missed its end. "
            "`repair` releases the address",
            record,
        )
    elif vm.phase is VmPhase.READY and record.address not in {it.address for it in vm.addresses}:
        others = ", ".join(str(it.address) for it in vm.addresses)
        yield Difference(
            record.vm, f"{has}; the VM is ready with {others}: one of both databases is older than the other"
        )


def _of_vm(vm: VmState, owners: Mapping[HostAddress, VmName]) -> Iterator[Difference]:
    for allocated in vm.addresses:
        owner = owners.get(allocated.address)
        if owner != vm.vm:
            whose = f"has it for {owner}" if owner else "does not hold it, and may give it to another VM"
            yield Difference(
                vm.vm,
                f"{vm.vm} is ready on {vm.node} with {allocated.address}, and ipam {whose}: ipam's database is older "
                "than what it has done. Delete the VM and ask for it again",
            )
