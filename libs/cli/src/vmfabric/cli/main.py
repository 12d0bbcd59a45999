"""All commands, and how a failure is told."""

import sys

from rich.markup import escape

from vmfabric.cli.on_demand import group
from vmfabric.cli.screen import errors
from vmfabric.contract.errors import VmfabricError
from vmfabric.lab.errors import LabError

_LAB = group(
    "lab",
    "The lab: a data centre in network namespaces.",
    {
        "up": "vmfabric.cli.lab:up",
        "down": "vmfabric.cli.lab:down",
        "status": "vmfabric.cli.lab_status:status",
        "start": "vmfabric.cli.lab_units:start",
        "stop": "vmfabric.cli.lab_units:stop",
        "restart": "vmfabric.cli.lab_units:restart",
        "exec": "vmfabric.cli.lab_exec:execute",
        "dump": "vmfabric.cli.lab:dump",
    },
)

_COMMANDS = group(
    "vmfabric",
    "The network control plane of VM clusters.",
    {
        "demo": "vmfabric.cli.demo:demo",
        "lab": _LAB,
        "apply": "vmfabric.cli.apply:apply",
        "import": "vmfabric.cli.importing:import_file",
        "publish": "vmfabric.cli.publish:publish",
        "ask": "vmfabric.cli.explain:ask",
        "explain": "vmfabric.cli.explain:explain",
        "watch": "vmfabric.cli.watch:watch",
        "test": "vmfabric.cli.development:run_tests",
        "check": "vmfabric.cli.development:check",
        "simulate": "vmfabric.cli.development:simulate",
        "bench": "vmfabric.cli.development:bench",
        "chaos": "vmfabric.cli.development:chaos",
        "contract": "vmfabric.cli.development:contract",
    },
)


def main() -> None:
    """Run the command line; a failure that a person can do something about is one sentence, not a traceback."""
    try:
        _COMMANDS.main(prog_name="vmfabric")
    except LabError as error:
        _tell(str(error))
    except VmfabricError as error:
        _tell(error.sentence, error.code)
    except OSError as error:
        if error.filename is None:  # of nothing that a person has named
            raise
        _tell(f"{error.filename}: {error.strerror}")
    sys.exit(1)


def _tell(sentence: str, code: str = "") -> None:
    errors.print(f"[bold red]✗[/] {escape(sentence)}{f' [dim]({code})[/]' if code else ''}", soft_wrap=True)
