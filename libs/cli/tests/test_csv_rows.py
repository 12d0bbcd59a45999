"""Each CSV file in `csv/` becomes the rows of the JSON file of its name."""

import json
from pathlib import Path

import pytest

from vmfabric.cli.csv_rows import Format, read
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
        6: "10.0.0.1 stands in row 2 already",
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
    ],
)
def test_a_heading_that_is_not_of_the_format_is_refused(text: str, form: Format, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        read(text, form, origin="a.csv")


def test_what_netbox_says_of_a_range_that_is_available_is_no_address() -> None:
    assert complaints("IP Address,VRF\n5 IPs available,Global\n", Format.NETBOX) == {
        2: "address: not an IPv4 or IPv6 address"
    }
