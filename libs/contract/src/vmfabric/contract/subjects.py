"""Subjects: `<entity>.<verb>` first, validated names behind. An address is never a token."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_TOKEN = re.compile(r"\A[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class Template:
    """The subject of one kind of event: a fixed stem and the names that follow it.

    >>> Template("iface.ready", ("cluster", "vm", "node")).render({"cluster": "msk", "vm": "vm1", "node": "n1"})
    'iface.ready.msk.vm1.n1'
    >>> Template("iface.ready", ("cluster", "vm", "node")).pattern({"node": "n1"})
    'iface.ready.*.*.n1'
    """

    stem: str
    names: tuple[str, ...] = ()

    def render(self, values: Mapping[str, str]) -> str:
        """The subject for these names. ValueError when one is missing or is not a token."""
        return ".".join([self.stem, *(self._token(name, values.get(name)) for name in self.names)])

    def pattern(self, values: Mapping[str, str] | None = None) -> str:
        """The subject with `*` for every name not given, for a subscription."""
        given = values or {}
        return ".".join(
            [self.stem, *(self._token(name, given[name]) if name in given else "*" for name in self.names)]
        )

    @staticmethod
    def _token(name: str, value: str | None) -> str:
        if value is None or not _TOKEN.match(value):
            raise ValueError(f"{name} {value!r} cannot be part of a subject")
        return value


VM = ("cluster", "vm")
VM_ON_NODE = ("cluster", "vm", "node")
NODE = ("cluster", "node")
CLUSTER = ("cluster",)
