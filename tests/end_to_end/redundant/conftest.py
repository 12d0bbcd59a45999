"""A lab with two of everything: three nats-servers, two schedulers and two ipams."""

from collections.abc import Iterator

import pytest

from vmfabric.lab import making as labs
from vmfabric.lab.lab import Lab
from vmfabric.lab.testing import own_state, own_topology


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    """With all services; nothing has been applied to it."""
    with own_state() as state:
        yield labs.up(own_topology("r").model_copy(update={"nats": 3, "control": 2}), state)
