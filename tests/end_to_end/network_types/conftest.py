"""A lab with a physical network and a provider's, and no fabric."""

from collections.abc import AsyncIterator, Iterator

import pytest

from outside.cluster import RoutingCluster, SwitchingCluster, emptied
from vmfabric.lab import making as labs
from vmfabric.lab.client import LabClient
from vmfabric.lab.lab import Lab
from vmfabric.lab.testing import own_state, own_topology
from vmfabric.lab.topology import load


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    """With all services; nothing has been applied to it."""
    with own_state() as state:
        topology = own_topology("o", "switching").model_copy(update={"routing": load("routing").routing})
        yield labs.up(topology, state)


@pytest.fixture
async def switching(lab: Lab, outside: LabClient) -> AsyncIterator[SwitchingCluster]:
    """The cluster on the physical network without any VM; afterwards nothing of the test's may be left."""
    async with emptied(SwitchingCluster(lab, outside)) as cluster:
        yield cluster


@pytest.fixture
async def routing(lab: Lab, outside: LabClient) -> AsyncIterator[RoutingCluster]:
    """The cluster of rented servers without any VM; afterwards nothing of the test's may be left."""
    async with emptied(RoutingCluster(lab, outside)) as cluster:
        yield cluster
