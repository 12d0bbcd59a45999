"""Which bus the command line speaks to."""

from pathlib import Path

import pytest

from vmfabric.cli.connection import bus_url
from vmfabric.lab.errors import LabError


def test_a_bus_that_is_named_needs_no_lab_to_be_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab.json").write_text("of another version")
    monkeypatch.setenv("VMFABRIC_LAB_DIR", str(tmp_path))
    monkeypatch.delenv("VMFABRIC_NATS_URL", raising=False)
    with pytest.raises(LabError, match="another version"):
        bus_url()
    monkeypatch.setenv("VMFABRIC_NATS_URL", "nats://192.0.2.1:4222")
    assert bus_url() == "nats://192.0.2.1:4222"
