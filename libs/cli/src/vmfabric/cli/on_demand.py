"""Commands that are imported when they are run: what one needs another does not, and a short one should be quick."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

_HELP = {"help_option_names": ["-h", "--help"]}


class OnDemand(Mapping[str, Any]):
    """The commands of a group by their names, each given as `module:function` or as a group."""

    def __init__(self, where: Mapping[str, str | TyperGroup]) -> None:
        self._where = where

    def __getitem__(self, name: str) -> Any:
        where = self._where[name]
        if isinstance(where, TyperGroup):
            return where
        module, _, function = where.partition(":")
        app = typer.Typer(add_completion=False)
        # What is behind `--` and unknown options belong to the program that `lab exec` or `test` runs.
        settings = {**_HELP, "ignore_unknown_options": name in {"exec", "test"}}
        app.command(name, context_settings=settings)(getattr(import_module(module), function))
        return typer.main.get_command(app)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def group(name: str, description: str, where: Mapping[str, str | TyperGroup]) -> TyperGroup:
    """A group of commands, in this order."""
    return TyperGroup(
        name=name,
        help=description,
        commands=OnDemand(where),  # type: ignore[arg-type]  # it is only read
        no_args_is_help=True,
        context_settings=_HELP,
    )
