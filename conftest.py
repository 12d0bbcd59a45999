"""Fixtures that every test may use."""

import pytest

pytest_plugins = ["vmfabric.lab.testing"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long some tests take."""
    parser.addoption(
        "--away-seconds", type=float, default=8.0, help="for how long the control plane is away in test_away.py"
    )


@pytest.fixture
def away_seconds(request: pytest.FixtureRequest) -> float:
    """For how long something is away."""
    return float(request.config.getoption("--away-seconds"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A database for each test, and thousands of seeds, are no part of the fast tests."""
    for item in items:
        if "postgres_server" in getattr(item, "fixturenames", ()) or "simulation" in item.path.parts:
            item.add_marker(pytest.mark.long)
