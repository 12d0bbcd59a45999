"""What is wrong with input, in words for whoever sent it."""

import json
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vmfabric.contract.patterns import IN_WORDS

_MOST = 10

_SENTENCES = {
    "missing": "is missing",
    "extra_forbidden": "there is no such field",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "json_invalid": "not JSON: {error}",
    "model_type": "must be an object",
    "too_short": "needs at least {min_length}, has {actual_length}",
    "too_long": "takes at most {max_length}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "value_error": "{error}",
}
"""By pydantic's type of error; the placeholders are what pydantic says of it."""


def sentence(error: ValidationError) -> str:
    """All complaints on one line, as `field: complaint`, each once; of very many, the first."""
    details = error.errors(include_url=False, include_input=False)
    # Of a list whose items are wrong, pydantic also says that it is too short.
    parents = {detail["loc"][:length] for detail in details for length in range(len(detail["loc"]))}
    found = {
        _complaint(detail): None
        for detail in details
        if detail["type"] != "too_short" or detail["loc"] not in parents
    }
    first = list(found)[:_MOST]
    rest = len(found) - len(first)
    return "; ".join(first) + (f"; and {rest} more" if rest else "")


def repeated_field(body: bytes) -> str | None:
    """The name of a field that stands twice in an object of this JSON text: one of the two is not what was meant."""
    repeated: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _value in pairs:
            if name in seen:
                repeated.append(name)
            seen.add(name)

    json.loads(body, object_pairs_hook=look)
    return repeated[0] if repeated else None


def _complaint(detail: ErrorDetails) -> str:
    # Between the fields, pydantic names the alternatives of its schema that it tried.
    where = ".".join(str(part) for part in detail["loc"] if str(part).isidentifier() or isinstance(part, int))
    what = _words(detail)
    return f"{where}: {what}" if where else what


def _words(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if detail["type"] == "string_pattern_mismatch":
        return IN_WORDS.get(context["pattern"], f"does not match {context['pattern']}")
    template = _SENTENCES.get(detail["type"])
    return template.format(**context) if template else detail["msg"]
