"""The files that operators apply."""

from pathlib import Path

import pytest

from vmfabric.cli.documents import Document, check, read
from vmfabric.contract.errors import Refused

EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_has_only_requests_of_the_contract(example: Path) -> None:
    documents = read(example.read_text(), origin=example.name)
    check(documents, origin=example.name)


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
        ("kind: pool\nspec: {name: a, name: b}", "'name' stands twice"),
        ("!!python/object/apply:os.system [id]", "wrong.yaml is not YAML"),
    ],
)
def test_what_is_no_document_is_refused_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(Refused, match=complaint):
        read(text, origin="wrong.yaml")


NETWORK = Document(1, "network", {"name": "public", "prefix": "198.51.100.0/24"})
CLUSTER = Document(2, "cluster", {"name": "msk"})
POOL = Document(3, "pool", {"name": "public", "cluster": "msk", "blocks": ["2001:db8::/64", "198.51.100.128/25"]})
NODE = Document(4, "node", {"name": "n1", "cluster": "msk", "address": "10.0.0.1"})


def test_every_mistake_of_a_file_is_told_before_anything_is_applied() -> None:
    with pytest.raises(Refused) as told:
        check([NETWORK, POOL, NODE, CLUSTER], origin="f.yaml")
    assert "f.yaml: nothing is applied" in told.value.sentence
    assert "document 4, node n1: spec.capacity: is missing" in told.value.sentence
    assert "document 2, cluster msk:" in told.value.sentence
    assert "document 1" not in told.value.sentence


@pytest.mark.parametrize("text", ["", "# nothing but a comment", "---\n---\n"])
def test_a_file_without_a_document_is_an_error(text: str) -> None:
    with pytest.raises(Refused, match=r"f\.yaml has no document in it"):
        check(read(text, origin="f.yaml"), origin="f.yaml")


@pytest.mark.parametrize(
    ("document", "others", "needed"),
    [
        (NODE, [NETWORK, CLUSTER], CLUSTER),
        (NODE, [NETWORK], None),
        (POOL, [NETWORK, CLUSTER], NETWORK),
        (POOL, [CLUSTER, Document(9, "network", {"name": "other", "prefix": "192.0.2.0/24"})], None),
        (NETWORK, [CLUSTER], None),
    ],
)
def test_a_document_knows_which_one_before_it_it_needs(
    document: Document, others: list[Document], needed: Document | None
) -> None:
    assert document.needs(others) is needed
