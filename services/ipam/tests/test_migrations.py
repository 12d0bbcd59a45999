"""Databases that an older ipam has written."""

import shutil
from pathlib import Path

from vmfabric.database.migrations import migrate
from vmfabric.database.pool import connect
from vmfabric.ipam.main import MIGRATIONS
from vmfabric.ipam.writer import SOURCE


async def test_what_was_reserved_again_by_its_owner_is_a_renewal_and_the_first_time_is_not(
    database_url: str, tmp_path: Path
) -> None:
    for file in MIGRATIONS.glob("000[1-4]-*.sql"):
        shutil.copy(file, tmp_path)
    await migrate(database_url, schema=SOURCE, directory=tmp_path)
    pool = await connect(database_url, schema=SOURCE, size=1)
    said = [
        ("10.0.0.1", "reserved", "bob"),
        ("10.0.0.2", "reserved", "bob"),
        ("10.0.0.1", "reserved", "bob"),
        ("10.0.0.1", "unreserved", "bob"),
        ("10.0.0.1", "reserved", "bob"),
        ("10.0.0.2", "reserved", "alice"),
    ]
    await pool.executemany(
        "INSERT INTO history (address, at, what, cluster, owner) VALUES ($1, now(), $2, 'msk', $3)", said
    )
    await migrate(database_url, schema=SOURCE, directory=MIGRATIONS)
    found = [row["what"] for row in await pool.fetch("SELECT what FROM history ORDER BY id")]
    assert found == ["reserved", "reserved", "renewed", "unreserved", "reserved", "reserved"]
    await pool.close()
