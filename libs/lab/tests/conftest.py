"""Labs of the tests' own: their names, ports and directories are nobody else's."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vmfabric.lab import lab as labs
from vmfabric.lab.lab import Lab
from vmfabric.lab.servers import free_port
from vmfabric.lab.state import State
from vmfabric.lab.topology import Topology, load


@pytest.fixture
def topology() -> Topology:
    return _topology("t")


@pytest.fixture
def state() -> Iterator[State]:
    with _state() as state:
        yield state


@pytest.fixture(scope="module")
def data_centre() -> Iterator[Lab]:
    """A lab without services, for tests that put it right again."""
    with _state() as state:
        yield labs.up(_topology("s"), state, with_services=False)


def _topology(letter: str) -> Topology:
    return load(None).model_copy(update={"name": f"{letter}{os.getpid():x}", "port": free_port()})


@contextmanager
def _state() -> Iterator[State]:
    with tempfile.TemporaryDirectory(prefix="vmfabric-lab-") as name:
        Path(name).chmod(0o755)  # FRR and Postgres run as users of their own
        state = State(Path(name) / "lab")
        try:
            yield state
        finally:
            labs.down(state)
