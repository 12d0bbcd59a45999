"""Who had an address when: what its history comes to."""

from collections.abc import Collection, Sequence
from datetime import datetime

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.addressing import AddressHistory, Tenure
from vmfabric.contract.admin import AddressRecord, HistoryEntry
from vmfabric.ipam.domain.history import BEGINS, ENDS, Standing


def told(
    address: HostAddress, entries: Sequence[HistoryEntry], record: AddressRecord | None, at: datetime
) -> AddressHistory:
    """From the entries, oldest first, around a moment, and what is known of the address now."""
    found = tenures(entries, record)
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


def told_between(
    address: HostAddress,
    entries: Sequence[HistoryEntry],
    record: AddressRecord | None,
    between: tuple[datetime, datetime],
    known_until: datetime | None,
) -> AddressHistory:
    """The same of all who had it between two moments; `known_until` is from where on entries are missing."""
    at, until = between
    if known_until is None or known_until > until:
        known_until = None
    alone = told(address, entries, record, at)
    sentence = _between(address, between, alone.tenures, known_until)
    had = tuple(each for each in alone.tenures if _lasts_between(each, at, until))
    return alone.model_copy(update={"sentence": sentence, "tenures": had})


def known_until(entries: Sequence[HistoryEntry], at: datetime, limit: int) -> datetime | None:
    """When the last entry was of a kind of which as many were read after that moment as may be; None: all were."""
    after = [entry for entry in entries if entry.at > at]
    kinds = ([it for it in after if (it.owner is None) is of_vms] for of_vms in (True, False))
    return min((kind[-1].at for kind in kinds if len(kind) >= limit), default=None)


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
        open_now[False] = Tenure(cluster=record.cluster, vm=record.vm, node=record.node, prefix=record.prefix)
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
        cluster=entry.cluster,
        vm=entry.vm,
        node=entry.node,
        owner=entry.owner,
        note=entry.note,
        prefix=entry.prefix,
        since=since,
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
        who = f"VM {holder.vm} of cluster {holder.cluster}"
        return f"At {moment} {who} had {address}{_with(holder) or ','} {_span(holder)}.{kept}"
    last = next((each for each in found if each.owner is None and each.until is not None and each.until <= at), None)
    before = f"; VM {last.vm} of cluster {last.cluster} had it last, {_span(last)}" if last is not None else ""
    return f"At {moment} no VM had {address}{before}{_remembered(found, at)}.{kept}"


def _between(
    address: HostAddress, between: tuple[datetime, datetime], found: Sequence[Tenure], known_until: datetime | None
) -> str:
    at, until = between
    had = [each for each in reversed(found) if _lasts_between(each, at, known_until or until)]
    when = f"Between {at.isoformat(timespec='seconds')} and {until.isoformat(timespec='seconds')}"
    own = [f"VM {each.vm} of cluster {each.cluster}{_with(each)} {_span(each)}" for each in had if each.owner is None]
    kept = [f"{each.owner} {_span(each)}" for each in had if each.owner is not None]
    whose = f"these had {address}: {'; '.join(own)}." if own else f"no VM had {address}{_remembered(found, at)}."
    reserved = f" It was reserved for {'; '.join(kept)}." if kept else ""
    more = (
        f" That is all until {known_until.isoformat(timespec='seconds')}; more is known: ask again from there."
        if known_until is not None
        else ""
    )
    return f"{when} {whose}{reserved}{more}"


def _remembered(found: Sequence[Tenure], at: datetime) -> str:
    """So that what was forgotten is not taken for what never was."""
    begun = [each.since for each in found]
    known = [since for since in begun if since is not None]
    if not known or len(known) < len(begun) or min(known) <= at:
        return ""
    return f"; what is remembered of it begins at {min(known).isoformat(timespec='seconds')}"


def _with(tenure: Tenure) -> str:
    return f", with all of {tenure.prefix}," if tenure.prefix is not None else ""


def _lasts_between(tenure: Tenure, at: datetime, until: datetime) -> bool:
    return (tenure.since is None or tenure.since <= until) and (tenure.until is None or at < tenure.until)


def _span(tenure: Tenure) -> str:
    since = tenure.since.isoformat(timespec="seconds") if tenure.since is not None else "before what is remembered"
    if tenure.until is None:
        return f"since {since}"
    return f"from {since} to {tenure.until.isoformat(timespec='seconds')}"
