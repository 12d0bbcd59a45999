"""Every benchmark, in one run: `./vmfabric bench`."""

import tempfile
from pathlib import Path

import allocation
import fabric
import uvloop

from vmfabric.lab import making as labs
from vmfabric.lab.servers import NatsServer, PostgresServer, free_port
from vmfabric.lab.testing import own_state, own_topology


async def _allocations(directory: Path) -> str:
    with (
        PostgresServer(directory / "postgres", port=free_port()) as postgres,
        NatsServer(directory / "nats", port=free_port()) as nats,
    ):
        await postgres.start()
        await nats.start()
        return allocation.table(await allocation.run(nats.url, postgres.url()))


def main() -> None:
    """Print the figures as they come."""
    print("Allocations over NATS: vm.placed in, ip.allocated out, committed in Postgres\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="vmfabric-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        for server in ("nats", "postgres"):
            (directory / server).mkdir()
        print(uvloop.run(_allocations(directory)), flush=True)
    print("\nAnnouncements: two nodes, two reflectors, a core\n", flush=True)
    with own_state() as state:
        lab = labs.up(own_topology("m"), state)
        print(fabric.table(uvloop.run(fabric.run(lab))), flush=True)


main()
