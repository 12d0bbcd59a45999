"""Networks and pools as operators apply them."""

from ipaddress import IPv4Network
from typing import Annotated

from pydantic import Field, model_validator

from vmfabric.contract.addresses import Prefix
from vmfabric.contract.model import Request
from vmfabric.contract.names import ClusterName, ResourceName


class NetworkSpec(Request):
    """A physical network: the space that blocks of pools are cut from."""

    name: ResourceName
    prefix: Prefix
    note: Annotated[str, Field(max_length=500)] = ""


class PoolSpec(Request):
    """Blocks of networks, combined for one cluster."""

    name: ResourceName
    cluster: ClusterName
    blocks: Annotated[tuple[Prefix, ...], Field(min_length=1, max_length=256)]
    """Each inside a network. Network, broadcast, .0 and .255 addresses are usable: an ip-fabric routes hosts."""
    exclude: Annotated[tuple[Prefix, ...], Field(max_length=1024)] = ()
    """Never given to a VM."""
    quarantine_seconds: Annotated[int, Field(ge=0, le=365 * 24 * 3600)] = 300
    """How long a released address rests before it may be given again."""

    @model_validator(mode="after")
    def _blocks(self) -> "PoolSpec":
        for index, block in enumerate(self.blocks):
            for other in self.blocks[:index]:
                if block.version == other.version and block.overlaps(other):
                    raise ValueError(f"blocks {other} and {block} overlap")
        for excluded in self.exclude:
            if not any(_inside(excluded, block) for block in self.blocks):
                raise ValueError(f"{excluded} is excluded, but lies in no block of the pool")
        return self


def _inside(inner: Prefix, outer: Prefix) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return not isinstance(outer, IPv4Network) and inner.subnet_of(outer)
