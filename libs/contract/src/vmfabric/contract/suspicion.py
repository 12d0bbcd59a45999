"""When so much is to be removed at once that it is rather the knowledge which has been lost."""

_FEW = 10
_SHARE = 0.1


def is_suspicious(removals: int, *, of: int) -> bool:
    """More than ten, and more than a tenth of all: that needs more than one operator's word."""
    return removals > max(_FEW, _SHARE * of)
