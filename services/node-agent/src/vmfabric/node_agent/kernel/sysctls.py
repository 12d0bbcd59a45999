"""Settings under /proc/sys/net, which shows those of the namespace of whoever opens it."""

from collections.abc import Iterable
from pathlib import Path

_ROOT = Path("/proc/sys/net")


def read(names: Iterable[str]) -> dict[str, int]:
    """Settings of the node, by their paths; what a link has that is not there is left out."""
    return {name: int((_ROOT / name).read_text()) for name in names if (_ROOT / name).exists()}


def write(name: str, value: int) -> None:
    """A setting of the node."""
    (_ROOT / name).write_text(str(value))


def write_port(interface: str, name: str, value: int) -> None:
    """A setting of one link; its name is as in `ipv4/rp_filter`."""
    family, setting = name.split("/")
    write(f"{family}/conf/{interface}/{setting}", value)
