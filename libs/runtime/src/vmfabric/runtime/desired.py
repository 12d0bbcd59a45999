"""Desired state on the KV bucket: what a writer puts there, and a node's mirror of what is its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import structlog
from pydantic import ValidationError

from vmfabric.contract.desired import (
    BUCKET,
    HANDED_OUT_KEY,
    VM_KEY,
    DesiredNode,
    DesiredPools,
    DesiredVm,
    FabricNode,
    HandedOut,
)
from vmfabric.contract.envelope import Outgoing
from vmfabric.contract.model import Desired
from vmfabric.contract.names import VmName

D = TypeVar("D", bound=Desired)
T_co = TypeVar("T_co", covariant=True)

KEY_SUBJECT = f"$KV.{BUCKET}."

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Revised(Generic[T_co]):
    """A value and the revision of its key: the same value written again has a new one."""

    revision: int
    value: T_co


class DesiredView(Protocol):
    """The desired state of one node, as far as it is known."""

    @property
    def complete(self) -> bool:
        """Whether all of it has been read once, from the bucket or from the snapshot."""
        ...

    @property
    def vms(self) -> Mapping[VmName, Revised[DesiredVm]]:
        """Every VM of which something is wanted here, absence too."""
        ...

    @property
    def node(self) -> Revised[DesiredNode] | None:
        """The node's own values."""
        ...

    @property
    def pools(self) -> Revised[DesiredPools] | None:
        """The blocks of the cluster's pools."""
        ...


def fabric_node(view: DesiredView) -> FabricNode | None:
    """The node's own values where its cluster is an ip-fabric; None in others, and before they are known."""
    node = None if view.node is None else view.node.value
    return node if isinstance(node, FabricNode) else None


def put(value: Desired) -> Outgoing:
    """The message that sets a key."""
    return Outgoing(subject=KEY_SUBJECT + value.key(), body=value.to_bytes(), headers={})


def purge(key: str) -> Outgoing:
    """The message that removes a key and what it held."""
    return Outgoing(subject=KEY_SUBJECT + key, body=b"", headers={"KV-Operation": "PURGE", "Nats-Rollup": "sub"})


def vms_in(bucket: Mapping[str, bytes]) -> list[DesiredVm]:
    """What the keys of VMs say, without those that nobody of us has written."""
    return _readable({key: value for key, value in bucket.items() if key.startswith(f"{VM_KEY.stem}.")}, DesiredVm)


def handed_out_in(bucket: Mapping[str, bytes]) -> list[HandedOut]:
    """What the bucket knows of removals: one value, or none."""
    key = HANDED_OUT_KEY.render({})
    return _readable({key: bucket[key]} if key in bucket else {}, HandedOut)


def _readable(values: Mapping[str, bytes], model: type[D]) -> list[D]:
    found: list[D] = []
    for key, value in values.items():
        try:
            found.append(model.from_bytes(value))
        except ValidationError as error:
            log.error("desired.unreadable", key=key, error=str(error))  # noqa: TRY400
    return found
