"""The cluster that these tests share."""

from collections.abc import AsyncIterator

import pytest

from outside.cluster import Cluster, emptied
from vmfabric.lab.client import LabClient
from vmfabric.lab.lab import Lab


@pytest.fixture
async def cluster(lab: Lab, outside: LabClient) -> AsyncIterator[Cluster]:
    """The cluster without any VM; afterwards the test's VMs go, and nothing of them may be left."""
    async with emptied(Cluster(lab, outside)) as cluster:
        yield cluster
