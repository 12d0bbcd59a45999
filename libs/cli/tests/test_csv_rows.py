"""Each CSV file in `csv/` becomes the rows of the JSON file of its name."""

import json
from pathlib import Path

import pytest

from vmfabric.cli.csv_rows import Format, Netbox, read
from vmfabric.contract.addressing import ImportRow
from vmfabric.contract.errors import Refused

GOLDEN = Path(__file__).with_name("csv")


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.csv")), ids=lambda file: file.stem)
def test_a_file_becomes_the_rows_that_it_says(file: Path) -> None:
    form = Format(file.stem.partition("-")[0])
    found = [line.row for line in read(file.read_text(encoding="utf-8"), form, origin=file.name)]
    wanted = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    assert found == [ImportRow.model_validate_json(json.dumps(row)) for row in wanted]


def complaints(text: str, form: Format = Format.PLAIN) -> dict[int, str]:
    return {line.number: line.complaint for line in read(text, form, origin="a.csv") if line.row is None}


def test_every_row_that_is_wrong_is_told_with_its_line_and_the_others_are_read() -> None:
    text = (
        "address,vm,note\n"
        "10.0.0.1,vm1,fine\n"
        "10.0.0.999,vm2,\n"
        "10.0.0.3,,nobody's\n"
        "\n"
        "10.0.0.1,vm5,\n"
        "10.0.0.6,VM_6,\n"
        "10.0.0.7,vm7\n"
    )
    assert complaints(text) == {
        3: "address: not an IPv4 or IPv6 address",
        4: "give the `vm` that has it, or an `owner`",
        6: "10.0.0.1 stands in row 2 already, and is not the same there",
        7: "vm: must be 1 to 63 characters of a-z, 0-9 and -, with no - at either end",
        8: "has 2 columns, and the heading 3",
    }


@pytest.mark.parametrize(
    ("text", "form", "sentence"),
    [
        ("", Format.PLAIN, "must begin with a line that names its columns"),
        ("address,vm,colour\n", Format.PLAIN, "found address, vm, colour"),
        ("IP Address,VRF\n", Format.PLAIN, "Is it --format netbox?"),
        ("Prefix,VRF\n", Format.NETBOX, "no export of NetBox's IP addresses"),
        ("address,vm,vm\n", Format.PLAIN, "has vm and vm, which are the same column twice"),
        ("IP Address,address\n", Format.NETBOX, "has ip address and address, which are the same column twice"),
    ],
)
def test_a_heading_that_is_not_of_the_format_is_refused(text: str, form: Format, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        read(text, form, origin="a.csv")


def test_what_netbox_says_of_a_range_that_is_available_is_no_address() -> None:
    assert complaints("IP Address,VRF\n5 IPs available,Global\n", Format.NETBOX) == {
        2: "address: not an IPv4 or IPv6 address"
    }


def netbox(text: str, *, vrf: str | None = None, vm_from_dns: bool = False) -> dict[int, tuple[str | None, str]]:
    """The VM of each line, and what is wrong with it."""
    lines = read(text, Format.NETBOX, origin="a.csv", netbox=Netbox(vrf, vm_from_dns))
    return {line.number: (line.row.vm if line.row else None, line.complaint) for line in lines}


def test_a_dns_name_names_no_vm_unless_that_is_asked_for_and_never_two_hosts_one_vm() -> None:
    text = "address,dns_name\n10.0.0.1,www.a.com\n10.0.0.2,WWW.A.com.\n10.0.0.3,www.b.com\n10.0.0.4,db.b.com\n"
    assert [vm for vm, _ in netbox(text).values()] == [None] * 4
    assert netbox(text, vm_from_dns=True) == {
        2: ("www", ""),
        3: ("www", ""),
        4: (None, "www.b.com would be of VM www, and so is www.a.com; name its VM in NetBox"),
        5: ("db", ""),
    }


def test_only_the_rows_of_one_vrf_are_taken_where_that_is_asked_for() -> None:
    text = "IP Address,VRF,Parent\n10.0.0.1/24,Global,vm1\n10.0.0.1/24,Customers,vm2\n10.0.0.3/24,Customers,vm3\n"
    assert netbox(text, vrf="customers") == {3: ("vm2", ""), 4: ("vm3", "")}
    assert netbox(text, vrf="global") == {2: ("vm1", "")}
    assert netbox(text)[3] == (None, "10.0.0.1 stands in row 2 already, and is not the same there")


def test_rows_that_are_equal_are_one() -> None:
    assert list(netbox("address,device\n10.0.0.1/24,vm1\n10.0.0.1/25,vm1\n10.0.0.2/24,vm1\n")) == [2, 4]


def test_line_breaks_in_a_cell_are_folded_and_the_lines_after_it_counted_as_they_are_in_the_file() -> None:
    text = 'address,vm,note\r\n10.0.0.1,vm1,"rack 7\r\n\r\nleft"\r\n10.0.0.2,VM_2,\r\n'
    first, second = read(text, Format.PLAIN, origin="a.csv")
    assert first.row is not None
    assert (first.number, first.row.note) == (4, "rack 7 left")
    assert second.number == 5


def test_a_change_of_the_text_in_netbox_changes_the_note_and_nobody_becomes_the_owner() -> None:
    text = "address,tenant,dns_name,description\n10.0.0.1/24,Bob,a.example.net,old\n"
    rows = [read(it, Format.NETBOX, origin="a.csv")[0].row for it in (text, text.replace("Bob", "Alice"))]
    assert [row and (row.owner, row.note) for row in rows] == [
        ("netbox", "old; tenant Bob; dns name a.example.net"),
        ("netbox", "old; tenant Alice; dns name a.example.net"),
    ]
