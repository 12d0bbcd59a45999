"""Who had an address when: what its history comes to."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.addressing import AddressHistory, Tenure
from vmfabric.contract.admin import HistoryEntry
from vmfabric.ipam.domain.history import What

_BEGINS = {What.ALLOCATED, What.RESERVED}
_ENDS = {What.RELEASED, What.UNRESERVED, What.EXPIRED}


def told(address: HostAddress, entries: Iterable[HistoryEntry], at: datetime) -> AddressHistory:
    """From the entries, oldest first, around a moment."""
    found = tenures(entries)
    then = [each for each in found if _lasts(each, at)]
    holder = next((each for each in then if each.owner is None), None)
    reserved = next((each for each in then if each.owner is not None), None)
    return AddressHistory(
        address=address,
        at=at,
        sentence=_sentence(address, at, holder, reserved, found),
        holder=holder,
        reserved=reserved,
        tenures=found,
    )


def tenures(entries: Iterable[HistoryEntry]) -> tuple[Tenure, ...]:
    """Newest first. Of one that has begun before the first entry only the end is known."""
    open_now: dict[bool, Tenure] = {}
    over: list[Tenure] = []
    for entry in entries:
        is_reservation = entry.owner is not None
        if entry.what in _BEGINS:
            before = open_now.pop(is_reservation, None)
            if before is not None and before.owner != entry.owner:
                over.append(before.model_copy(update={"until": entry.at}))
                before = None
            open_now[is_reservation] = _tenure(entry, since=before.since if before is not None else entry.at)
        elif entry.what in _ENDS:
            begun = open_now.pop(is_reservation, None) or _tenure(entry, since=None)
            over.append(begun.model_copy(update={"until": entry.at}))
    return tuple(reversed([*over, *sorted(open_now.values(), key=_since)]))


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


def _span(tenure: Tenure) -> str:
    since = tenure.since.isoformat(timespec="seconds") if tenure.since is not None else "before what is remembered"
    if tenure.until is None:
        return f"since {since}"
    return f"from {since} to {tenure.until.isoformat(timespec='seconds')}"
