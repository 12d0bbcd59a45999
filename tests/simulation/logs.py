"""The errors that services log, as something that can be looked at."""

import logging
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog


@contextmanager
def errors_watched(look: Callable[[str, BaseException | None], None]) -> Iterator[None]:
    """Meanwhile nothing is written, and `look` gets each exception that is logged."""

    def watch(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
        if event.get("exc_info"):
            look(str(event["event"]), sys.exc_info()[1])
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[watch],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions of a group, or the one that is none."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
