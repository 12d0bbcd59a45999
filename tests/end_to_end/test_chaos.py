"""A short run of `./vmfabric chaos`: every kind of strike once, under load."""

import pytest

from chaos.__main__ import summary
from chaos.run import run
from chaos.strikes import KINDS
from outside.cluster import Cluster

pytestmark = pytest.mark.lab


@pytest.mark.timeout(600)
async def test_what_is_struck_under_load_is_right_in_the_end(cluster: Cluster) -> None:
    report = await run(cluster, seed=7, strikes=len(KINDS))
    print(summary(report))
    assert report.wrong == []
    assert {struck.kind for struck in report.struck} == set(KINDS)
    assert report.facts > len(report.struck)
