"""Changes as text for `vtysh -f`, which finds its way from one section to the next by itself."""

from collections.abc import Sequence

from vmfabric.bgp_announcer.domain.plan import Change


def script(changes: Sequence[Change]) -> str:
    """Each line below the lines that lead to its section. ValueError when one has a line break."""
    lines: list[str] = []
    section: tuple[str, ...] = ()
    for change in changes:
        if not change.text.isprintable():
            raise ValueError(f"a line of configuration has a character that is not printable: {change.text!r}")
        if change.section and change.section != section:
            lines += [f"{' ' * depth}{text}" for depth, text in enumerate(change.section)]
        section = change.section
        lines.append(f"{' ' * len(section)}{change.text}")
    return "".join(f"{line}\n" for line in lines)
