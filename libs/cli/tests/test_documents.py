"""The files that operators apply."""

from pathlib import Path

import pytest
from pydantic import BaseModel, TypeAdapter

from vmfabric.cli.documents import read
from vmfabric.contract.admin import ApplyCluster, ApplyNetwork, ApplyNode, ApplyPool
from vmfabric.contract.errors import Refused

EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"
REQUESTS: dict[str, type[BaseModel]] = {
    "network": ApplyNetwork,
    "pool": ApplyPool,
    "cluster": ApplyCluster,
    "node": ApplyNode,
}


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_has_only_requests_of_the_contract(example: Path) -> None:
    documents = read(example.read_text(), origin=example.name)
    assert documents
    for document in documents:
        spec = TypeAdapter(dict[str, object]).dump_json({"spec": document.spec})
        REQUESTS[document.kind].model_validate_json(spec)


@pytest.mark.parametrize("word", ["02:00:00:12:34:56", "65000:10", "no", "on", "2026-01-01", "0o17", "1_000", "1e3"])
def test_a_plain_word_stays_a_word(word: str) -> None:
    (document,) = read(f"kind: pool\nspec: {{name: {word}}}", origin="words.yaml")
    assert document.spec["name"] == word


def test_numbers_truth_and_nothing_are_those_of_json() -> None:
    (document,) = read("kind: pool\nspec: {a: 300, b: -1, c: 1.5, d: true, e: null}", origin="numbers.yaml")
    assert document.spec == {"a": 300, "b": -1, "c": 1.5, "d": True, "e": None}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("kind: pool", "document 1 of wrong.yaml must have exactly `kind`"),
        ("kind: pool\nspec: {}\nextra: 1", "document 1 of wrong.yaml must have exactly `kind`"),
        ("kind: pool\nspec: {}\n---\nkind: vm\nspec: {}", "document 2 of wrong.yaml"),
        ("kind: pool\nspec: []", "document 1 of wrong.yaml"),
        ("- 1", "document 1 of wrong.yaml"),
        ("{", "wrong.yaml is not YAML"),
        ("!!python/object/apply:os.system [id]", "wrong.yaml is not YAML"),
    ],
)
def test_what_is_no_document_is_refused_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(Refused, match=complaint):
        read(text, origin="wrong.yaml")
