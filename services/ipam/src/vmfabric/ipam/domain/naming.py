"""Many things in one sentence."""

from collections.abc import Sequence

_NAMED = 20
"""So many are named; the others are counted."""


def named(things: Sequence[object]) -> str:
    """`a, b, c`, or of very many the first and how many more there are."""
    first = ", ".join(str(thing) for thing in things[:_NAMED])
    more = len(things) - _NAMED
    return f"{first} and {more} more" if more > 0 else first
