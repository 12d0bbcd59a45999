"""What the scheduler can be told."""

from pydantic import Field

from vmfabric.runtime.settings import DatabaseSettings


class SchedulerSettings(DatabaseSettings):
    """`VMFABRIC_…` in the environment; all times in seconds."""

    phase_seconds: float = Field(default=30.0, gt=0)
    """How long one phase of a VM's life may take."""
    migration_seconds: float = Field(default=600.0, gt=0)
    """How long a guest may take to come to its target, from the moment that this is wired. Then the VM stays where it
    is."""
    ask_again_seconds: float = Field(default=3.0, gt=0)
    """When a missing answer is asked for the first time again."""
    accepted_generation: int = Field(default=0, ge=0)
    """An operator's word that the database is to be used though nodes were told more, up to this generation."""
    node_lost_seconds: float = Field(default=10.0, gt=0)
    """How long a node may be silent."""
    connections: int = Field(default=10, ge=2, le=100)
    """To Postgres."""
