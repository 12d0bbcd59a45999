"""YAML documents `kind: …`, `spec: {…}`, as operators write them."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import yaml
from pydantic import ValidationError

from vmfabric.contract.admin import ApplyCluster, ApplyNetwork, ApplyNode, ApplyPool
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.model import Request
from vmfabric.runtime.complaints import sentence

REQUESTS: Mapping[str, type[Request]] = {
    "network": ApplyNetwork,
    "pool": ApplyPool,
    "cluster": ApplyCluster,
    "node": ApplyNode,
}
"""What can be applied."""


@dataclass(frozen=True, slots=True)
class Document:
    """One thing to apply."""

    number: int
    """Its place in the file, from 1."""
    kind: str
    spec: dict[str, Any]

    @property
    def name(self) -> str:
        """As the file gives it."""
        return str(self.spec.get("name", "(no name)"))

    def body(self, *, dry_run: bool) -> bytes:
        """The request that applies it."""
        return json.dumps({"spec": self.spec, "dry_run": dry_run}).encode()

    def needs(self, others: Sequence["Document"]) -> "Document | None":
        """Which of these must be applied before this one can be, if any. It must have passed `check`."""
        match self.kind:
            case "node":
                needed = ("cluster", {self.spec["cluster"]})
            case "pool":
                blocks = [ip_network(block) for block in self.spec["blocks"]]
                networks = [other for other in others if other.kind == "network"]
                needed = ("network", {other.name for other in networks if _holds_one_of(other, blocks)})
            case _:
                return None
        return next((other for other in others if other.kind == needed[0] and other.name in needed[1]), None)


class _JsonLoader(yaml.SafeLoader):
    """Plain words mean what they mean in JSON: 52:54:00:12:34:56 is no number in base 60, and `no` is not false.

    A field that stands twice is an error: one of the two is not what was meant.
    """

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012  # PyYAML's own way to replace them

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
            if key.value in names:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
            names.add(key.value)
        return super().construct_mapping(node, deep=deep)


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
        raise Refused(Code.INVALID_REQUEST, f"{origin} is not YAML: {' '.join(str(error).split())}") from error


def check(documents: Sequence[Document], *, origin: str) -> None:
    """Refused, with all that is wrong, when one of them can never be applied, or when there is none."""
    if not documents:
        raise Refused(Code.INVALID_REQUEST, f"{origin} has no document in it; nothing is applied")
    complaints = [complaint for document in documents for complaint in _complaints(document)]
    if complaints:
        raise Refused(Code.INVALID_REQUEST, f"{origin}: nothing is applied, since {'; '.join(complaints)}")


def _complaints(document: Document) -> Iterator[str]:
    try:
        REQUESTS[document.kind].model_validate_json(document.body(dry_run=False))
    except ValidationError as error:
        yield f"document {document.number}, {document.kind} {document.name}: {sentence(error)}"


def _holds_one_of(network: Document, blocks: Sequence[IPv4Network | IPv6Network]) -> bool:
    prefix = ip_network(network.spec["prefix"])
    return any(prefix.version == block.version and prefix.supernet_of(block) for block in blocks)  # type: ignore[arg-type]


def _documents(text: str, origin: str) -> Iterator[Document]:
    for number, found in enumerate(yaml.load_all(text, _JsonLoader), 1):  # a SafeLoader with fewer words
        if found is None:
            continue
        match found:
            case {"kind": str(kind), "spec": dict(spec)} if kind in REQUESTS and len(found) == 2:
                yield Document(number, kind, spec)
            case _:
                raise Refused(
                    Code.INVALID_REQUEST,
                    f"document {number} of {origin} must have exactly `kind`, one of {', '.join(REQUESTS)}, "
                    "and `spec`",
                )
