"""Files that a node service keeps across restarts: written whole, or not at all."""

import os
from pathlib import Path
from typing import TypeVar

import structlog
from prometheus_client import Counter
from pydantic import BaseModel, ValidationError

from vmfabric.contract.desired import DesiredNode, DesiredPools, DesiredVm, Presence
from vmfabric.contract.names import VmName
from vmfabric.runtime.desired import Revised

M = TypeVar("M", bound=BaseModel)

log = structlog.get_logger()

_unsaved = Counter("vmfabric_snapshots_not_saved", "Writes of the node's own files that failed")


class SavedVm(BaseModel):
    """A VM's desired value and its revision."""

    revision: int
    value: DesiredVm


class SavedNode(BaseModel):
    """The node's desired value and its revision."""

    revision: int
    value: DesiredNode


class SavedPools(BaseModel):
    """The pools' desired value and its revision."""

    revision: int
    value: DesiredPools


class Snapshot(BaseModel):
    """The desired state of a node as it was last known."""

    vms: dict[VmName, SavedVm] = {}
    node: SavedNode | None = None
    pools: SavedPools | None = None


class Confirmed(BaseModel):
    """Which value of a VM the last fact was published for."""

    revision: int
    generation: int
    presence: Presence


class _Confirmations(BaseModel):
    vms: dict[VmName, Confirmed] = {}


class Confirmations:
    """For which desired values a fact has been published, so that a restart with nothing to do publishes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._vms = dict((load(path, _Confirmations) or _Confirmations()).vms)
        self._changed = False

    def is_confirmed(self, desired: Revised[DesiredVm]) -> bool:
        """Whether the fact for this very value has been published."""
        return self._vms.get(desired.value.vm) == _confirmed(desired)

    def last(self, vm: VmName) -> Confirmed | None:
        """What the last fact about this VM was published for."""
        return self._vms.get(vm)

    def last_said(self, presence: Presence) -> frozenset[VmName]:
        """Those VMs about which the last fact was published for this presence."""
        return frozenset(vm for vm, confirmed in self._vms.items() if confirmed.presence is presence)

    def confirm(self, desired: Revised[DesiredVm]) -> None:
        """The fact for this value is published."""
        self._vms[desired.value.vm] = _confirmed(desired)
        self._changed = True

    def forget(self, vm: VmName) -> None:
        """Nothing is wanted of this VM any more, or its fact has to be published again."""
        self._changed = self._vms.pop(vm, None) is not None or self._changed

    def save(self) -> None:
        """Keep it, if it changed."""
        if self._changed:
            self._changed = not save(self._path, _Confirmations(vms=self._vms))


def _confirmed(desired: Revised[DesiredVm]) -> Confirmed:
    value = desired.value
    return Confirmed(revision=desired.revision, generation=value.generation, presence=value.presence)


def load(path: Path, model: type[M]) -> M | None:
    """What was saved; None when there is no file, or one that cannot be read, which is set aside and reported."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        aside = path.with_suffix(".unreadable")
        path.replace(aside)
        log.error("snapshot.unreadable", path=str(path), kept_as=str(aside), error=str(error))  # noqa: TRY400
        return None


def save(path: Path, model: BaseModel) -> bool:
    """Replace the file in one step; it holds secrets (the BGP password), so only we may read it.

    False when that fails, as on a full disk: a node serves its VMs all the same, and the older file stays.
    """
    draft = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123
            file.write(model.model_dump_json().encode())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        _unsaved.inc()
        log.error("snapshot.not_saved", path=str(path), error=str(error), todo="a crash now would lose what is new")  # noqa: TRY400
        return False
    return True
