"""All commands, and how a failure is told."""

import sys

import typer
from rich.markup import escape

from vmfabric.cli import apply, demo, development, lab, publish, watch
from vmfabric.cli.screen import errors
from vmfabric.contract.errors import VmfabricError

app = typer.Typer(
    help="The network control plane of VM clusters.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("demo")(demo.demo)
app.add_typer(lab.app, name="lab")
app.command("apply")(apply.apply)
app.command("publish")(publish.publish)
app.command("watch")(watch.watch)
app.command("test", context_settings={"ignore_unknown_options": True})(development.run_tests)
app.command("check")(development.check)
app.command("bench")(development.bench)
app.command("contract")(development.contract)


def main() -> None:
    """Run the command line; a failure that a person can do something about is one sentence, not a traceback."""
    try:
        app(prog_name="vmfabric")
    except LabError as error:
        errors.print(f"[bold red]✗[/] {escape(str(error))}", soft_wrap=True)
    except VmfabricError as error:
        errors.print(f"[bold red]✗[/] {escape(error.sentence)} [dim]({error.code})[/]", soft_wrap=True)
    sys.exit(1)
