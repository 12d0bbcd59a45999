"""The database is set back: a standby that was behind is promoted, or an old backup is restored."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from outside.cluster import Cluster
from vmfabric.contract.admin import Vms
from vmfabric.contract.errors import TryAgain
from vmfabric.lab import control_plane, faults, processes, redundancy
from vmfabric.lab.hosts import run_on
from vmfabric.lab.pings import pinged

pytestmark = pytest.mark.lab


@contextmanager
def postgres_is_down(cluster: Cluster) -> Iterator[Path]:
    """Its data, to be exchanged meanwhile."""
    faults.kill_service(cluster.lab, "postgres")
    yield control_plane.postgres_directory(cluster.lab.state) / "data"
    faults.start_service(cluster.lab, "postgres")


def is_noticed(cluster: Cluster) -> bool:
    said = [processes.output(cluster.lab.state, it) for it in redundancy.copies(cluster.lab, "scheduler")]
    return any('"event": "database.behind"' in text for text in said)


async def test_a_database_that_was_set_back_is_noticed_and_not_obeyed(cluster: Cluster, tmp_path: Path) -> None:
    with postgres_is_down(cluster) as data:
        shutil.copytree(data, tmp_path / "older", symlinks=True, copy_function=shutil.copy2)
    await cluster.settled()
    await cluster.request("vm1", node="n1")
    ready = await cluster.ready("vm1")
    await cluster.reachable(ready)
    routes = run_on(cluster.lab, "n1", "ip", "route")
    async with pinged(cluster.lab, "core", ready.addresses[0].address) as pings:
        with postgres_is_down(cluster) as data:
            data.rename(tmp_path / "newer")
            copy_as_it_was(tmp_path / "older", data)
        async with asyncio.timeout(30):
            while not is_noticed(cluster):
                await asyncio.sleep(0.1)
        with pytest.raises(TryAgain):
            await cluster.outside.ask("vm.list", {}, Vms)
        assert run_on(cluster.lab, "n1", "ip", "route") == routes
        with postgres_is_down(cluster) as data:
            shutil.rmtree(data)
            (tmp_path / "newer").rename(data)
        await cluster.settled()
        assert [it.vm for it in await cluster.all_ready(["vm1"])] == ["vm1"]
    assert pings.lost == 0


def copy_as_it_was(source: Path, target: Path) -> None:
    """With its owner, since Postgres refuses another."""
    shutil.copytree(source, target, symlinks=True)
    owner = target.parent.stat()
    for path in (target, *target.rglob("*")):
        shutil.chown(path, owner.st_uid, owner.st_gid)
