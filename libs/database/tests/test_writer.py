"""One writer per schema, through restarts of the database."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from vmfabric.database.writer import writer
from vmfabric.lab.servers import PostgresServer, free_port
from vmfabric.runtime.service import work_until

pytestmark = pytest.mark.long


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A Postgres of the test's own, which it may stop."""
    with tempfile.TemporaryDirectory(prefix="vmfabric-test-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with PostgresServer(directory, port=free_port(), survives_power_cuts=False) as own:
            asyncio.run(own.start())
            yield own


async def test_a_writer_works_on_when_postgres_has_been_away(server: PostgresServer, tmp_path: Path) -> None:
    (tmp_path / "0001.sql").write_text("CREATE TABLE sign_of_life (term int PRIMARY KEY)")
    stopping = asyncio.Event()
    terms: list[asyncpg.Pool] = []
    entered = asyncio.Event()

    async def work() -> None:
        async with writer(server.url(), schema="a", migrations=tmp_path) as pool:
            terms.append(pool)
            await pool.execute("INSERT INTO sign_of_life VALUES ($1)", len(terms))
            entered.set()
            await asyncio.Event().wait()

    working = asyncio.create_task(work_until(stopping, work))
    async with asyncio.timeout(40):
        await entered.wait()
        entered.clear()
        server.kill()
        # Away for longer than the writer needs to notice, and to try in vain.
        await asyncio.sleep(3)
        assert not working.done()
        assert len(terms) == 1
        await server.start()
        await entered.wait()
        stopping.set()
        await working
    connection = await asyncpg.connect(server.url())
    assert await connection.fetchval("SELECT array_agg(term ORDER BY term) FROM a.sign_of_life") == [1, 2]
    await connection.close()


async def test_a_second_writer_waits_for_the_first_and_takes_over_when_that_is_cut_off(
    database_url: str, tmp_path: Path
) -> None:
    entered: list[str] = []

    async def work(name: str) -> None:
        async with writer(database_url, schema="b", migrations=tmp_path):
            entered.append(name)
            await asyncio.Event().wait()

    first = asyncio.create_task(work("first"))
    async with asyncio.timeout(20):
        while not entered:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(work("second"))
        connection = await asyncpg.connect(database_url)
        # It has asked for the lock more often than once.
        while await connection.fetchval(_WAITING) < 1:
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        assert entered == ["first"]
        assert await connection.fetchval(_CUT_OFF) == 1
        while entered != ["first", "second"]:
            await asyncio.sleep(0.01)
        await connection.close()
    second.cancel()
    done = await asyncio.gather(first, second, return_exceptions=True)
    assert all(isinstance(error, BaseException) for error in done)


_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'vmfabric-lock-b'
    AND pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')
"""
_CUT_OFF = """
SELECT count(pg_terminate_backend(pid)) FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND datname = current_database()
"""
