"""FRR's configuration as lines, each in its section: the form in which wanted and found are compared."""

import re
from dataclasses import dataclass
from functools import lru_cache

Section = tuple[str, ...]
"""The lines that lead to it from the top, such as `("router bgp 65000", "address-family ipv4 unicast")`."""

TOP: Section = ()


@dataclass(frozen=True, slots=True)
class Line:
    """One line of configuration."""

    section: Section
    text: str
    is_shown: bool = True
    """False where the line says FRR's own default, which a running configuration leaves out."""

    @property
    def place(self) -> tuple[Section, str]:
        """What two configurations are compared by. FRR numbers the entries of a list by itself, and takes no entry
        twice, so the number says nothing.
        """
        return self.section, _unnumbered(self.text)


@lru_cache(maxsize=10_000)
def _unnumbered(text: str) -> str:
    return re.sub(r" seq \d+ ", " ", text)


def parse(running: str) -> tuple[Line, ...]:
    """The lines of `show running-config`. A section is a line with deeper ones below it.

    https://docs.frrouting.org/en/stable-8.4/basic.html
    """
    lines: list[Line] = []
    path: list[tuple[int, str]] = []
    for raw in running.splitlines():
        text = raw.strip()
        if (
            not text
            or text.startswith("!")
            or text in _ENDINGS
            or text.endswith(("configuration:", "configuration..."))
        ):
            continue
        indent = len(raw) - len(raw.lstrip())
        while path and path[-1][0] >= indent:
            path.pop()
        lines.append(Line(tuple(parent for _, parent in path), text))
        path.append((indent, text))
    return tuple(lines)


_ENDINGS = frozenset({"end", "exit", "exit-address-family", "exit-vrf", "exit-vnc"})
