"""YAML documents `kind: …`, `spec: {…}`, as operators write them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from vmfabric.contract.errors import Code, Refused

KINDS = ("network", "pool", "cluster", "node")
"""What can be applied."""


@dataclass(frozen=True, slots=True)
class Document:
    """One thing to apply."""

    kind: str
    spec: dict[str, Any]

    @property
    def name(self) -> str:
        """As the file gives it."""
        return str(self.spec.get("name", "(no name)"))


class _JsonLoader(yaml.SafeLoader):
    """Plain words mean what they mean in JSON: 52:54:00:12:34:56 is no number in base 60, and `no` is not false."""

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012  # PyYAML's own way to replace them


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("null", r"^(?:null)?$", ["n", ""]),
    ("int", r"^-?(?:0|[1-9][0-9]*)$", "-0123456789"),
    ("float", r"^-?(?:0|[1-9][0-9]*)\.[0-9]+$", "-0123456789"),
):
    _JsonLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def read(text: str, *, origin: str) -> tuple[Document, ...]:
    """The documents of a file, in its order. Refused when one is not a document; `origin` names the file."""
    try:
        return tuple(_documents(text, origin))
    except yaml.YAMLError as error:
        raise Refused(Code.INVALID_REQUEST, f"{origin} is not YAML: {error}") from error


def _documents(text: str, origin: str) -> Iterator[Document]:
    for number, found in enumerate(yaml.load_all(text, _JsonLoader), 1):  # a SafeLoader with fewer words
        if found is None:
            continue
        match found:
            case {"kind": str(kind), "spec": dict(spec)} if kind in KINDS and len(found) == 2:
                yield Document(kind, spec)
            case _:
                raise Refused(
                    Code.INVALID_REQUEST,
                    f"document {number} of {origin} must have exactly `kind`, one of {', '.join(KINDS)}, and `spec`",
                )
