"""Fixtures that every test may use."""

import pytest

pytest_plugins = ["vmfabric.lab.testing"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A database for each test, and thousands of seeds, are no part of the fast tests."""
    for item in items:
        if "postgres_server" in getattr(item, "fixturenames", ()) or "simulation" in item.path.parts:
            item.add_marker(pytest.mark.long)
