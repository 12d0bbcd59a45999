"""A lab whose Postgres has a standby: of each test's own, since the first Postgres is gone afterwards."""

from collections.abc import Iterator

import pytest

from outside.cluster import Cluster
from vmfabric.lab import making as labs
from vmfabric.lab.client import LabClient
from vmfabric.lab.lab import Lab
from vmfabric.lab.testing import own_state, own_topology


@pytest.fixture
def lab() -> Iterator[Lab]:
    """With all services; nothing has been applied to it."""
    with own_state() as state:
        yield labs.up(own_topology("s").model_copy(update={"postgres": 2}), state)


@pytest.fixture
async def cluster(lab: Lab, outside: LabClient) -> Cluster:
    """The cluster without any VM."""
    cluster = Cluster(lab, outside)
    await cluster.apply()
    await cluster.settled()
    return cluster
