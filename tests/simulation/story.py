"""What happened, in the order in which it happened."""

from collections.abc import Callable


class Story:
    """A numbered list that a person can read. Ids that differ from run to run are not told."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lines: list[tuple[float, str, tuple[object, ...]]] = []

    def tell(self, words: str, *details: object) -> None:
        """`words` is a format string; it is filled in when somebody reads."""
        self._lines.append((self._clock(), words, details))

    def __len__(self) -> int:
        return len(self._lines)

    def text(self) -> str:
        """All of it."""
        return "\n".join(
            f"{number:5} {at:9.3f} s  {words.format(*details)}"
            for number, (at, words, details) in enumerate(self._lines, 1)
        )
