"""Who had an address when: what its history comes to."""

from collections.abc import Collection, Sequence
from datetime import datetime

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.addressing import AddressHistory, Tenure
from vmfabric.contract.admin import AddressRecord, HistoryEntry
from vmfabric.ipam.domain.history import BEGINS, ENDS, Standing


def told(
    address: HostAddress,
    entries: Sequence[HistoryEntry],
    record: AddressRecord | None,
    at: datetime,
    until: datetime | None = None,
) -> AddressHistory:
    """From the entries, oldest first, around a moment, and what is known of the address now."""
    found = tenures(entries, record)
    then = [each for each in found if _lasts(each, at)]
    holder = next((each for each in then if each.owner is None), None)
    reserved = next((each for each in then if each.owner is not None), None)
    return AddressHistory(
        address=address,
        at=at,
        sentence=_sentence(address, at, holder, reserved, found)
        if until is None
        else _between(address, at, until, found),
        holder=holder,
        reserved=reserved,
        tenures=found,
    )


def tenures(entries: Sequence[HistoryEntry], record: AddressRecord | None = None) -> tuple[Tenure, ...]:
    """Newest first. Of one that has begun before the first entry only the end is known.

    What goes on now and has no entry, since its beginning was forgotten, is told by the record.
    """
    open_now: dict[bool, Tenure] = {}
    over: list[Tenure] = []
    for entry in entries:
        is_reservation = entry.owner is not None
        if entry.what in BEGINS:
            before = open_now.pop(is_reservation, None)
            if before is not None and before.owner != entry.owner:
                over.append(before.model_copy(update={"until": entry.at}))
                before = None
            open_now[is_reservation] = _tenure(entry, since=before.since if before is not None else entry.at)
        elif entry.what in ENDS:
            begun = open_now.pop(is_reservation, None) or _tenure(entry, since=None)
            # A reservation is told as its owner last renewed it.
            over.append(begun.model_copy(update={"until": entry.at, "vm": entry.vm, "note": entry.note}))
    if record is not None:
        _add_current(open_now, record, known={entry.owner is not None for entry in entries})
    return tuple(reversed([*over, *sorted(open_now.values(), key=_since)]))


def _add_current(open_now: dict[bool, Tenure], record: AddressRecord, *, known: Collection[bool]) -> None:
    if record.vm is not None and record.state != Standing.QUARANTINED and False not in known:
        open_now[False] = Tenure(cluster=record.cluster, vm=record.vm, node=record.node)
    kept = record.reservation
    if kept is None:
        return
    begun = open_now.get(True)
    if begun is not None and begun.owner == kept.owner:
        open_now[True] = begun.model_copy(update={"vm": kept.for_vm, "note": kept.note})
    elif True not in known:
        open_now[True] = Tenure(
            cluster=kept.cluster,
            vm=kept.for_vm,
            node=kept.node,
            owner=kept.owner,
            note=kept.note,
            since=kept.since,
        )


def _lasts(tenure: Tenure, at: datetime) -> bool:
    return (tenure.since is None or tenure.since <= at) and (tenure.until is None or at < tenure.until)


def _tenure(entry: HistoryEntry, *, since: datetime | None) -> Tenure:
    return Tenure(
        cluster=entry.cluster, vm=entry.vm, node=entry.node, owner=entry.owner, note=entry.note, since=since
    )


def _since(tenure: Tenure) -> float:
    return tenure.since.timestamp() if tenure.since is not None else 0.0


def _sentence(
    address: HostAddress,
    at: datetime,
    holder: Tenure | None,
    reserved: Tenure | None,
    found: Sequence[Tenure],
) -> str:
    kept = f" It was reserved for {reserved.owner}." if reserved is not None else ""
    moment = at.isoformat(timespec="seconds")
    if holder is not None:
        return f"At {moment} VM {holder.vm} of cluster {holder.cluster} had {address}, {_span(holder)}.{kept}"
    last = next((each for each in found if each.owner is None and each.until is not None and each.until <= at), None)
    before = f"; VM {last.vm} of cluster {last.cluster} had it last, {_span(last)}" if last is not None else ""
    return f"At {moment} no VM had {address}{before}.{kept}"


def _between(address: HostAddress, at: datetime, until: datetime, found: Sequence[Tenure]) -> str:
    when = f"Between {at.isoformat(timespec='seconds')} and {until.isoformat(timespec='seconds')}"
    own = [
        f"VM {each.vm} of cluster {each.cluster} {_span(each)}"
        for each in reversed(found)
        if each.owner is None and _lasts_between(each, at, until)
    ]
    return f"{when} no VM had {address}." if not own else f"{when} these had {address}: {'; '.join(own)}."


def _lasts_between(tenure: Tenure, at: datetime, until: datetime) -> bool:
    return (tenure.since is None or tenure.since <= until) and (tenure.until is None or at < tenure.until)


def _span(tenure: Tenure) -> str:
    since = tenure.since.isoformat(timespec="seconds") if tenure.since is not None else "before what is remembered"
    if tenure.until is None:
        return f"since {since}"
    return f"from {since} to {tenure.until.isoformat(timespec='seconds')}"
