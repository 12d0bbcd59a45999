"""Fixtures that every test may use."""

pytest_plugins = ["vmfabric.lab.testing"]
