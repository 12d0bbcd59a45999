"""What one batch writes, as one statement, whatever its size.

What is new is inserted without ON CONFLICT: if it is there, somebody else has written, and the batch must fail. What
is changed is an upsert, not an update: it finds its row by the unique index whatever the planner believes about the
size of the table, and the plan of a prepared statement outlives such beliefs.
"""

from collections.abc import Sequence
from typing import Any

from vmfabric.contract.addressing import Reservation
from vmfabric.contract.envelope import Outgoing
from vmfabric.ipam.domain.changes import Changes, Holding
from vmfabric.ipam.domain.history import Entry
from vmfabric.ipam.domain.lease import Lease

Columns = list[list[Any]]

_LEASE = "lease (cluster, vm, node, generation, state, since, refused_code, refused_because)"
_LEASE_ROWS = """
    SELECT * FROM unnest({}::text[], {}::text[], {}::text[], {}::bigint[], {}::text[], {}::timestamptz[], {}::text[],
                         {}::text[])"""
_ALLOCATION = "allocation (address, pool, cluster, vm, node, generation, position, since, rests_until, prefix)"
_ALLOCATION_ROWS = """
    SELECT * FROM unnest({}::inet[], {}::text[], {}::text[], {}::text[], {}::text[], {}::bigint[], {}::smallint[],
                         {}::timestamptz[], {}::timestamptz[], {}::cidr[])"""

_NEW_LEASES = f"INSERT INTO {_LEASE} {_LEASE_ROWS}"
_LEASES_CHANGED = f"""
    INSERT INTO {_LEASE} {_LEASE_ROWS} ON CONFLICT (cluster, vm) DO UPDATE
    SET node = EXCLUDED.node, generation = EXCLUDED.generation, state = EXCLUDED.state, since = EXCLUDED.since,
        refused_code = EXCLUDED.refused_code, refused_because = EXCLUDED.refused_because"""  # noqa: S608  # words of ours
_NEW_HOLDINGS = f"INSERT INTO {_ALLOCATION} {_ALLOCATION_ROWS}"
_HOLDINGS_CHANGED = f"""
    INSERT INTO {_ALLOCATION} {_ALLOCATION_ROWS} ON CONFLICT (address) DO UPDATE
    SET node = EXCLUDED.node, generation = EXCLUDED.generation, position = EXCLUDED.position, since = EXCLUDED.since,
        rests_until = EXCLUDED.rests_until"""  # noqa: S608
_FREED = "DELETE FROM allocation WHERE address = ANY ({}::inet[])"
_RESERVED = """
    INSERT INTO reservation (address, pool, cluster, owner, note, since, expires_at, for_vm, node)
    SELECT * FROM unnest({}::inet[], {}::text[], {}::text[], {}::text[], {}::text[], {}::timestamptz[],
                         {}::timestamptz[], {}::text[], {}::text[])
    ON CONFLICT (address) DO UPDATE
    SET owner = EXCLUDED.owner, note = EXCLUDED.note, since = EXCLUDED.since, expires_at = EXCLUDED.expires_at,
        for_vm = EXCLUDED.for_vm, node = EXCLUDED.node"""
_UNRESERVED = "DELETE FROM reservation WHERE address = ANY ({}::inet[])"
_HISTORY = """
    INSERT INTO history (address, at, what, cluster, vm, node, generation, owner, note, prefix)
    SELECT * FROM unnest({}::inet[], {}::timestamptz[], {}::text[], {}::text[], {}::text[], {}::text[],
                         {}::bigint[], {}::text[], {}::text[], {}::cidr[])"""
_OUTBOX = """
    INSERT INTO outbox (subject, headers, body) SELECT * FROM unnest({}::text[], {}::jsonb[], {}::bytea[])
    RETURNING id"""


def commit_statement(changes: Changes, messages: Sequence[Outgoing]) -> tuple[str, Columns]:
    """The statement and its arguments. It gives the ids of the messages in the outbox, in their order."""
    parts = [
        (_NEW_LEASES, _columns([_lease_row(lease) for lease in changes.new_leases])),
        (_LEASES_CHANGED, _columns([_lease_row(lease) for lease in changes.leases])),
        (_NEW_HOLDINGS, _columns([_holding_row(holding) for holding in changes.new_holdings])),
        (_HOLDINGS_CHANGED, _columns([_holding_row(holding) for holding in changes.holdings])),
        (_FREED, [changes.freed] if changes.freed else []),
        (_RESERVED, _columns([_reservation_row(reservation) for reservation in changes.reserved])),
        (_UNRESERVED, [changes.unreserved] if changes.unreserved else []),
        (_HISTORY, _columns([_history_row(entry) for entry in changes.history])),
        (_OUTBOX, _columns([(message.subject, message.headers, message.body) for message in messages])),
    ]
    texts: list[str] = []
    arguments: Columns = []
    for text, columns in parts:
        if columns:
            texts.append(text.format(*[f"${len(arguments) + index}" for index in range(1, len(columns) + 1)]))
            arguments += columns
    *first, last = texts
    named = ", ".join(f"part_{number} AS ({text})" for number, text in enumerate(first))
    return (f"WITH {named} {last}" if named else last), arguments


def _lease_row(lease: Lease) -> tuple[Any, ...]:
    refusal = lease.refusal or (None, None)
    return (*lease.key, lease.node, lease.generation, lease.state, lease.since, *refusal)


def _holding_row(holding: Holding) -> tuple[Any, ...]:
    return (
        *(holding.address, holding.pool, *holding.key, holding.node),
        *(holding.generation, holding.position, holding.since, holding.rests_until, holding.prefix),
    )


def _reservation_row(reservation: Reservation) -> tuple[Any, ...]:
    return (
        *(reservation.address, reservation.pool, reservation.cluster, reservation.owner, reservation.note),
        *(reservation.since, reservation.expires_at, reservation.for_vm, reservation.node),
    )


def _history_row(entry: Entry) -> tuple[Any, ...]:
    return (
        *(entry.address, entry.at, entry.what, entry.cluster, entry.vm),
        *(entry.node, entry.generation, entry.owner, entry.note, entry.prefix),
    )


def _columns(rows: Sequence[tuple[Any, ...]]) -> Columns:
    """One array for each column, as unnest wants them."""
    return [list(column) for column in zip(*rows, strict=True)]
