"""Settings from the environment: `VMFABRIC_NATS_URL` and so on."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from vmfabric.contract.names import ClusterName, NodeName


class ServiceSettings(BaseSettings):
    """What every service needs."""

    model_config = SettingsConfigDict(env_prefix="VMFABRIC_")

    nats_url: str = "nats://127.0.0.1:4222"
    """One server, or those of a cluster with commas between."""
    nats_replicas: int = Field(default=1, ge=1, le=5)
    """On how many servers of a cluster each stream is kept; the same for every service."""
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics_port: int | None = None
    """TCP port of `/metrics` on the loopback address; None serves none."""


class DatabaseSettings(ServiceSettings):
    """What a service of the control plane needs."""

    database_url: str = Field(default=..., repr=False)
    """`postgresql://user:password@host:port/database`."""


class NodeSettings(ServiceSettings):
    """What a service on a node needs."""

    cluster: ClusterName = Field(default=...)
    node: NodeName = Field(default=...)
    state_dir: Path = Path("/var/lib/vmfabric")
    """Where snapshots are kept."""
    bucket_seconds: float = Field(default=2.0, ge=0)
    """How long the bus is waited for at the start, before the node works from its snapshot."""
