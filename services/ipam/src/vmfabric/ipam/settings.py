"""Settings from the environment, `VMFABRIC_…`."""

from pydantic import Field

from vmfabric.runtime.settings import DatabaseSettings


class IpamSettings(DatabaseSettings):
    """What ipam needs beside the bus and the database."""

    fence_days: int = Field(default=8, ge=8)
    """How long a VM that holds nothing is remembered: longer than the bus keeps events, which may come late."""
    history_days: int = Field(default=400, ge=1)
    """How long it is remembered who had an address."""
