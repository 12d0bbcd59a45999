"""What the bgp-announcer can be told."""

from typing import Annotated

from pydantic import Field, StringConstraints

from vmfabric.runtime.settings import NodeSettings


class AnnouncerSettings(NodeSettings):
    """`VMFABRIC_…` in the environment; all times in seconds."""

    frr_pathspace: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    """FRR's `-N`; None for the FRR of the system."""
    resync_seconds: float = Field(default=3.0, gt=0)
    """How often FRR's configuration is compared with the desired one."""
    audit_seconds: float = Field(default=10.0, gt=0)
    """How often the routes that have been announced are looked for in FRR again; 0.2 ms for each."""
    session_seconds: float = Field(default=1.0, gt=0)
    """How often the sessions are looked at."""
