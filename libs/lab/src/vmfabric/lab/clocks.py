"""Wall clocks that can be set host by host, though all hosts have one kernel.

The services of a lab with `settable_clocks` are started with libfaketime before their C library; it reads by how much
the clock of their host is off from a file (https://github.com/wolfcw/libfaketime). The monotonic clock stays the
kernel's. Not so nats-server, which needs no C library, and Postgres, whose clock none of our statements asks.
"""

from collections.abc import Mapping
from pathlib import Path

from vmfabric.lab.errors import LabError
from vmfabric.lab.state import State

_LIBRARIES = "*/faketime/libfaketime.so.1"
_REREAD_SECONDS = 1


def environment(state: State, host: str) -> Mapping[str, str]:
    """What a program of the host is started with. LabError when libfaketime is not installed."""
    library = next(Path("/usr/lib").glob(_LIBRARIES), None)
    if library is None:
        raise LabError("clocks that can be set need libfaketime: apt-get install libfaketime")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(_file(state, host)),
        "FAKETIME_CACHE_DURATION": str(_REREAD_SECONDS),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def set_clock(state: State, host: str, seconds: float) -> None:
    """Put the wall clock of a host so far ahead of the machine's, or behind it."""
    file = _file(state, host)
    file.parent.mkdir(parents=True, exist_ok=True)
    state.replace(file, f"{seconds:+.0f}\n")


def _file(state: State, host: str) -> Path:
    return state.of_service(host, "clock") / "offset"
