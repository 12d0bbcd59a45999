"""Rows of `ip.import` from CSV: a plain table, or what NetBox exports of its IP addresses.

NetBox has two exports with different headings, and both are read: of a table (`IP Address,VRF,Status,Role,…`, with
`Parent` or, in older versions, `Device/VM` where that column is shown), and of fields (`address,vrf,tenant,…`).
Addresses come with the length of their prefix, which is left out.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from vmfabric.contract.addressing import ImportRow
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.names import VmName
from vmfabric.runtime.complaints import sentence

Cells = Mapping[str, str]

_PLAIN = ("address", "vm", "owner", "node", "note")
_NETBOX = {
    "ip address": "address",
    "address": "address",
    "vrf": "vrf",
    "status": "status",
    "role": "role",
    "tenant": "tenant",
    "parent": "parent",
    "device/vm": "parent",
    "virtual_machine": "parent",
    "device": "device",
    "dns name": "dns name",
    "dns_name": "dns name",
    "description": "description",
}
_NETBOX_ORDINARY = {"", "active", "global", "—"}
"""What needs no note."""
_VM = TypeAdapter[str](VmName)


class Format(StrEnum):
    """How the columns are named."""

    PLAIN = "plain"
    NETBOX = "netbox"


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the file."""

    number: int
    """Where it ends in the file, from 1; the heading is line 1."""
    row: ImportRow | None
    complaint: str = ""
    """Why there is no row."""


def read(text: str, form: Format, *, origin: str) -> tuple[Line, ...]:
    """Every row of the file. Refused when the heading is not one of the format's; `origin` names the file."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff")))
    heading = [name.strip().casefold() for name in next(reader, [])]
    match form:
        case Format.PLAIN:
            return tuple(_lines(reader, _plain_columns(heading, origin), _of_plain))
        case Format.NETBOX:
            return tuple(_lines(reader, _netbox_columns(heading, origin), _of_netbox))


def _plain_columns(heading: list[str], origin: str) -> list[str]:
    unknown = [name for name in heading if name not in _PLAIN]
    if "address" not in heading or unknown:
        raise Refused(
            Code.INVALID_REQUEST,
            f"{origin} must begin with a line that names its columns: address, and of {', '.join(_PLAIN[1:])} those "
            f"that it has; found {', '.join(heading) or 'nothing'}. Is it --format netbox?",
        )
    return heading


def _netbox_columns(heading: list[str], origin: str) -> list[str]:
    columns = [_NETBOX.get(name, "") for name in heading]
    if "address" not in columns:
        raise Refused(
            Code.INVALID_REQUEST,
            f"{origin} has no column `IP Address` or `address`, so it is no export of NetBox's IP addresses; found "
            f"{', '.join(heading) or 'nothing'}",
        )
    return columns


def _lines(reader: Iterator[list[str]], columns: list[str], fields: Callable[[Cells], Cells]) -> Iterator[Line]:
    numbers: dict[str, int] = {}
    number = 1
    for cells in reader:
        number += 1
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            yield Line(number, None, f"has {len(cells)} columns, and the heading {len(columns)}")
            continue
        found = {name: cell.strip() for name, cell in zip(columns, cells, strict=True) if name and cell.strip()}
        try:
            row = ImportRow.model_validate_strings(fields(found))
        except ValidationError as error:
            yield Line(number, None, sentence(error))
            continue
        first = numbers.setdefault(str(row.address), number)
        if first == number:
            yield Line(number, row)
        else:
            yield Line(number, None, f"{row.address} stands in row {first} already")


def _of_plain(cells: Cells) -> Cells:
    return cells


def _of_netbox(cells: Cells) -> Cells:
    parent, name = cells.get("parent") or cells.get("device", ""), cells.get("dns name", "")
    fields = {
        "address": cells.get("address", "").partition("/")[0],
        "vm": next((each for each in (parent.lower(), name.lower().partition(".")[0]) if _is_vm(each)), ""),
        "owner": cells.get("tenant") or parent or name or cells.get("description") or "netbox",
        "note": _note(cells),
    }
    return {field: text for field, text in fields.items() if text}


def _note(cells: Cells) -> str:
    others = [
        f"{column} {cells[column]}"
        for column in ("status", "role", "vrf")
        if cells.get(column, "").casefold() not in _NETBOX_ORDINARY
    ]
    return "; ".join([*filter(None, [cells.get("description")]), *others])


def _is_vm(text: str) -> bool:
    try:
        _VM.validate_python(text)
    except ValidationError:
        return False
    return True
