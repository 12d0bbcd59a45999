"""Labs without services."""

from collections.abc import Iterator

import pytest

from vmfabric.lab import making as labs
from vmfabric.lab.lab import Lab
from vmfabric.lab.state import State
from vmfabric.lab.testing import own_state, own_topology
from vmfabric.lab.topology import Topology


@pytest.fixture
def topology() -> Topology:
    return own_topology("t")


@pytest.fixture
def state() -> Iterator[State]:
    with own_state() as state:
        yield state


@pytest.fixture(scope="module")
def data_centre() -> Iterator[Lab]:
    """For tests that put right again what they change."""
    with own_state() as state:
        yield labs.up(own_topology("s"), state, with_services=False)
