"""Rows of `ip.import` from CSV: a plain table, or what NetBox exports of its IP addresses.

NetBox has two exports with different headings, and both are read: of a table (`IP Address,VRF,Status,Role,…`, with
`Parent` or, in older versions, `Device/VM` where that column is shown), and of fields (`address,vrf,tenant,…`).
Addresses come with the length of their prefix, which is left out. What NetBox says of an address may change at any
time: its reservation belongs to NetBox, and what is said of it is the note.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

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
_NETBOX_OWNER = "netbox"
_NETBOX_NOTED = ("tenant", "parent", "device", "dns name", "status", "role", "vrf")
_NETBOX_ORDINARY = {"", "active", "global", "—"}
"""What needs no note."""
_VM = TypeAdapter[str](VmName)


class _Reader(Protocol):
    """What the csv module makes."""

    @property
    def line_num(self) -> int: ...

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


class Format(StrEnum):
    """How the columns are named."""

    PLAIN = "plain"
    NETBOX = "netbox"


@dataclass(frozen=True, slots=True)
class Netbox:
    """What is taken of NetBox's export."""

    vrf: str | None = None
    """Only the rows of this VRF; `global` is that of no name. None: all rows."""
    vm_from_dns: bool = False
    """Whether an address without a parent is of the VM that the first label of its DNS name names."""


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the file."""

    number: int
    """The line of the file in which it ends, from 1."""
    row: ImportRow | None
    complaint: str = ""
    """Why there is no row."""


def read(text: str, form: Format, *, origin: str, netbox: Netbox = Netbox()) -> tuple[Line, ...]:
    """Every row of the file, or of NetBox's those that are wanted; rows that are equal are one.

    Refused when the heading is not one of the format's; `origin` names the file.
    """
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    heading = [_folded(name).casefold() for name in next(reader, [])]
    match form:
        case Format.PLAIN:
            return tuple(_lines(reader, _plain_columns(heading, origin), _of_plain))
        case Format.NETBOX:
            return tuple(_lines(reader, _netbox_columns(heading, origin), _OfNetbox(netbox).fields))


def _plain_columns(heading: list[str], origin: str) -> list[str]:
    unknown = [name for name in heading if name not in _PLAIN]
    if "address" not in heading or unknown:
        raise Refused(
            Code.INVALID_REQUEST,
            f"{origin} must begin with a line that names its columns: address, and of {', '.join(_PLAIN[1:])} those "
            f"that it has; found {', '.join(heading) or 'nothing'}. Is it --format netbox?",
        )
    _check_once(heading, heading, origin)
    return heading


def _netbox_columns(heading: list[str], origin: str) -> list[str]:
    columns = [_NETBOX.get(name, "") for name in heading]
    if "address" not in columns:
        raise Refused(
            Code.INVALID_REQUEST,
            f"{origin} has no column `IP Address` or `address`, so it is no export of NetBox's IP addresses; found "
            f"{', '.join(heading) or 'nothing'}",
        )
    _check_once(columns, heading, origin)
    return columns


def _check_once(columns: list[str], heading: list[str], origin: str) -> None:
    for column in filter(None, columns):
        names = [name for name, meant in zip(heading, columns, strict=True) if meant == column]
        if len(names) > 1:
            raise Refused(
                Code.INVALID_REQUEST,
                f"{origin} has {' and '.join(names)}, which are the same column twice; leave one of them out",
            )


def _lines(reader: "_Reader", columns: list[str], fields: Callable[[Cells], Cells | None]) -> Iterator[Line]:
    lines: dict[str, tuple[int, ImportRow]] = {}
    for cells in reader:
        number = reader.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            yield Line(number, None, f"has {len(cells)} columns, and the heading {len(columns)}")
            continue
        folded = {name: _folded(cell) for name, cell in zip(columns, cells, strict=True) if name}
        try:
            wanted = fields({name: cell for name, cell in folded.items() if cell})
            row = ImportRow.model_validate_strings(wanted) if wanted is not None else None
        except ValidationError as error:
            yield Line(number, None, sentence(error))
            continue
        except Refused as refusal:
            yield Line(number, None, refusal.sentence)
            continue
        if row is None:
            continue
        first, earlier = lines.setdefault(str(row.address), (number, row))
        if first == number:
            yield Line(number, row)
        elif row != earlier:
            yield Line(number, None, f"{row.address} stands in row {first} already, and is not the same there")


def _folded(cell: str) -> str:
    """On one line."""
    return " ".join(cell.split())


def _of_plain(cells: Cells) -> Cells:
    return cells


class _OfNetbox:
    """Rows of one file."""

    def __init__(self, wanted: Netbox) -> None:
        self._wanted = wanted
        self._names: dict[str, str] = {}
        """The DNS name that each first label is of."""

    def fields(self, cells: Cells) -> Cells | None:
        """None when the row is not wanted. Refused when its VM would be another row's too."""
        if self._wanted.vrf is not None and _vrf(cells.get("vrf", "")) != _vrf(self._wanted.vrf):
            return None
        parent = (cells.get("parent") or cells.get("device", "")).lower()
        vm = parent if _is_vm(parent) else self._vm_of_name(cells.get("dns name", ""))
        fields = {
            "address": cells.get("address", "").partition("/")[0],
            "vm": vm,
            "owner": _NETBOX_OWNER,
            "note": _note(cells, vm),
        }
        return {field: text for field, text in fields.items() if text}

    def _vm_of_name(self, text: str) -> str:
        name = text.lower().rstrip(".")
        label = name.partition(".")[0]
        if not self._wanted.vm_from_dns or not _is_vm(label):
            return ""
        other = self._names.setdefault(label, name)
        if other != name:
            raise Refused(Code.CONFLICT, f"{name} would be of VM {label}, and so is {other}; name its VM in NetBox")
        return label


def _vrf(name: str) -> str:
    folded = _folded(name).casefold()
    return "" if folded in _NETBOX_ORDINARY else folded


def _note(cells: Cells, vm: str) -> str:
    others = [
        f"{column} {cells[column]}"
        for column in _NETBOX_NOTED
        if cells.get(column, "").casefold() not in {*_NETBOX_ORDINARY, vm}
    ]
    return "; ".join([*filter(None, [cells.get("description")]), *others])


def _is_vm(text: str) -> bool:
    try:
        _VM.validate_python(text)
    except ValidationError:
        return False
    return True
