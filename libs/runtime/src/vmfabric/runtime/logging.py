"""structlog, as JSON lines or for a terminal."""

import logging
import sys
from contextvars import ContextVar

import structlog

from vmfabric.contract.envelope import Trace
from vmfabric.contract.model import Event
from vmfabric.runtime.settings import ServiceSettings

_NAMES = ("cluster", "vm", "node", "generation")

handled: ContextVar[tuple[Event, Trace] | None] = ContextVar("handled", default=None)
"""The event that is being handled. Its words are looked up only when something is logged, as few events are."""


def configure(service: str, settings: ServiceSettings) -> None:
    """Every line says which service it is from; what the libraries log goes the same way."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_handled,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    console = settings.log_format == "console"
    ending: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *ending,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)


def _add_handled(_logger: object, _method: str, words: structlog.typing.EventDict) -> structlog.typing.EventDict:
    current = handled.get()
    if current is None:
        return words
    event, trace = current
    own = {name: getattr(event, name) for name in _NAMES if hasattr(event, name)}
    return {**own, "event_type": event.subject_template.stem, "trace_id": trace.trace_id, **words}
