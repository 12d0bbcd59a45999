"""The thousands of seeds begin with the first test of any kind, and use the time in which the lab waits."""

import pytest

from simulation.many import InBackground

SEEDS = 10_000

_BESIDE = pytest.StashKey[InBackground]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin, if a test wants them."""
    wanted = any("seeds_beside" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not session.config.option.collectonly:
        session.config.stash[_BESIDE] = InBackground(range(SEEDS))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Nothing goes on after the tests."""
    beside = session.config.stash.get(_BESIDE, None)
    if beside is not None:
        beside.end()


@pytest.fixture(scope="session")
def seeds_beside(request: pytest.FixtureRequest) -> InBackground:
    """What comes of them."""
    return request.config.stash[_BESIDE]
