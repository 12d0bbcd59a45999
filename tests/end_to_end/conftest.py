"""The cluster that these tests share."""

from collections.abc import AsyncIterator

import pytest

from outside.cluster import Cluster
from vmfabric.contract.admin import Vms
from vmfabric.lab import traces
from vmfabric.lab.client import LabClient
from vmfabric.lab.lab import Lab


@pytest.fixture
async def cluster(lab: Lab, outside: LabClient) -> AsyncIterator[Cluster]:
    """The cluster without any VM; afterwards the test's VMs go, and nothing of them may be left."""
    cluster = Cluster(lab, outside)
    await cluster.apply()
    await cluster.settled()
    before = await traces.settled(lab, outside)
    yield cluster
    await cluster.settled()
    left = [state.vm for state in (await outside.ask("vm.list", {}, Vms)).vms]
    outside.heard.clear()
    await cluster.delete(*left)
    remains = await traces.left_over(lab, outside, before)
    assert not remains, f"left behind: {remains}"
