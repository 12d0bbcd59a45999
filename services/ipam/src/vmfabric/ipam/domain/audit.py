"""Who has which address, as ipam says, beside which VM has which address, as the scheduler says."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.addressing import Reservation
from vmfabric.contract.admin import AddressRecord, VmPhase, VmState
from vmfabric.contract.names import NodeName, VmName
from vmfabric.ipam.domain.history import Standing

IN_FLUX = timedelta(minutes=1)
"""What is younger may be on its way from one service to the other."""


class Holder(NamedTuple):
    """A VM as ipam knows it."""

    vm: VmName
    node: NodeName
    generation: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the two do not agree on, or that should have ended."""

    sentence: str
    vm: VmName | None = None
    orphan: Holder | None = None
    """Nobody needs what it holds, so it can be released."""
    overdue: Reservation | None = None
    """It should have ended by itself."""


def differences(
    records: Sequence[AddressRecord], vms: Mapping[VmName, VmState], wanted: Collection[VmName], now: datetime
) -> Iterator[Difference]:
    """Of one cluster. `wanted`: VMs that a node has or may have, by the bucket of desired state."""
    owners: dict[HostAddress, VmName] = {}
    for record in records:
        yield from _overdue(record, now)
        holder = _holder(record)
        if holder is None:
            continue
        owners[record.address] = holder.vm
        if now - record.since > IN_FLUX:
            yield from _of_record(record, holder, vms.get(holder.vm), holder.vm in wanted)
    for vm in vms.values():
        if vm.phase is VmPhase.READY and now - vm.since > IN_FLUX:
            yield from _of_vm(vm, owners)


def _overdue(record: AddressRecord, now: datetime) -> Iterator[Difference]:
    reservation = record.reservation
    if reservation is None or reservation.expires_at is None or now - reservation.expires_at <= IN_FLUX:
        return
    yield Difference(
        f"{record.address} is kept for {reservation.owner} by a hold that should have ended at "
        f"{reservation.expires_at.isoformat(timespec='seconds')}: ipam's sweep does not come to it, and its log says "
        "why (sweep.waits). `repair` ends the hold",
        overdue=reservation,
    )


def _holder(record: AddressRecord) -> Holder | None:
    if record.state == Standing.QUARANTINED or record.vm is None or record.node is None or record.generation is None:
        return None
    return Holder(record.vm, record.node, record.generation)


def _of_record(record: AddressRecord, holder: Holder, vm: VmState | None, is_wanted: bool) -> Iterator[Difference]:
    has = f"{record.address} is {record.state} for {holder.vm}, generation {holder.generation}"
    if vm is None and is_wanted:
        yield Difference(
            f"{has}; the scheduler knows no such VM, but the bucket has a key of it, and its node may have it wired: "
            f"the scheduler's database is older than what it has done. See node.audit of {holder.node}",
            holder.vm,
        )
    elif vm is None:
        yield Difference(
            f"{has}; the scheduler knows no such VM and the bucket has no key of it: ipam has missed its end. "
            "`repair` releases the address",
            holder.vm,
            orphan=holder,
        )
    elif vm.phase is VmPhase.READY and record.address not in {it.address for it in vm.addresses}:
        others = ", ".join(str(it.address) for it in vm.addresses)
        yield Difference(
            f"{has}; the VM is ready with {others}: one of both databases is older than the other", holder.vm
        )


def _of_vm(vm: VmState, owners: Mapping[HostAddress, VmName]) -> Iterator[Difference]:
    for allocated in vm.addresses:
        owner = owners.get(allocated.address)
        if owner != vm.vm:
            whose = f"has it for {owner}" if owner else "does not hold it, and may give it to another VM"
            yield Difference(
                f"{vm.vm} is ready on {vm.node} with {allocated.address}, and ipam {whose}: ipam's database is older "
                "than what it has done. Delete the VM and ask for it again",
                vm.vm,
            )
