"""The contract stays what its users built on."""

import json
from pathlib import Path
from typing import Any

import pytest

from vmfabric.contract import asyncapi
from vmfabric.contract.desired import DesiredVm
from vmfabric.contract.guest_config import GuestConfigForm
from vmfabric.contract.model import Event, RequestEvent
from vmfabric.contract.streams import FACTS, PASSING, REQUESTS, STREAMS

SAMPLES = Path(__file__).with_name("samples")
EVENTS: dict[str, type[Event]] = {event.subject_template.stem: event for event in (*REQUESTS, *FACTS, *PASSING)}


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    return [found for value in node for found in references(value)] if isinstance(node, list) else []


def test_every_reference_of_the_document_resolves() -> None:
    document = asyncapi.document()
    for reference in references(document):
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def holds(written: object, before: object) -> bool:
    """Whether all that was there before is there now; what is new may stand beside it, on every level."""
    if isinstance(written, dict) and isinstance(before, dict):
        return all(name in written and holds(written[name], value) for name, value in before.items())
    if isinstance(written, list) and isinstance(before, list):
        return len(written) == len(before) and all(map(holds, written, before))
    return written == before


@pytest.mark.parametrize("stem", sorted(EVENTS))
def test_a_message_of_the_first_version_is_still_read_and_written_alike(stem: str) -> None:
    """Samples are what consumers were built on: add some, never change one."""
    sample = json.loads((SAMPLES / f"{stem}.json").read_text())
    event = EVENTS[stem].model_validate_json(json.dumps(sample["body"]))
    assert event.subject() == sample["subject"]
    written = json.loads(event.model_dump_json(exclude_none=True))
    assert holds(written, sample["body"])


@pytest.mark.parametrize("stem", sorted(EVENTS))
def test_a_field_of_tomorrow_is_ignored_in_facts_and_refused_in_requests(stem: str) -> None:
    sample = json.loads((SAMPLES / f"{stem}.json").read_text())
    body = json.dumps({**sample["body"], "of_tomorrow": 1})
    if issubclass(EVENTS[stem], RequestEvent):
        with pytest.raises(ValueError, match="of_tomorrow"):
            EVENTS[stem].model_validate_json(body)
    else:
        EVENTS[stem].model_validate_json(body)


def test_a_desired_vm_of_the_first_version_is_still_read() -> None:
    """Records in Postgres and snapshots of nodes have them."""
    vm = DesiredVm.model_validate_json((SAMPLES / "desired" / "vm.json").read_text())
    assert (vm.guest_config, vm.dhcp, vm.mtu) == (GuestConfigForm.FACTS, False, 1450)


def test_every_field_that_may_be_none_may_be_left_out() -> None:
    """None is not written into messages, so whoever reads must not miss it."""
    document = asyncapi.document()
    for name, schema in document["components"]["schemas"].items():
        for field, kind in schema.get("properties", {}).items():
            nullable = any(option.get("type") == "null" for option in kind.get("anyOf", ()))
            assert not (nullable and field in schema.get("required", ())), f"{name}.{field}"


def test_no_stream_keeps_a_subject_of_the_administration() -> None:
    kept = [subject.split(".") for stream in STREAMS for subject in stream.subjects]

    def matches(pattern: list[str], subject: list[str]) -> bool:
        if pattern[-1] == ">":
            return len(subject) >= len(pattern) and matches(pattern[:-1], subject[: len(pattern) - 1])
        return len(pattern) == len(subject) and all(p in {"*", s} for p, s in zip(pattern, subject, strict=True))

    for subject in asyncapi.ADMINISTRATION:
        assert not [pattern for pattern in kept if matches(pattern, subject.split("."))]
