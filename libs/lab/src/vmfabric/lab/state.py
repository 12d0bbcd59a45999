"""The lab's directory: what exists, so that it can be found again and removed by another process."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from vmfabric.lab.errors import LabError
from vmfabric.lab.topology import Topology

DEFAULT_DIRECTORY = Path("/var/lib/vmfabric-lab")
DIRECTORY_VARIABLE = "VMFABRIC_LAB_DIR"
_LOCK_SECONDS = 2.0


class Record(BaseModel):
    """What is written before the first thing of a lab is made. Every name in use follows from the topology."""

    topology: Topology
    ready: bool = False
    """False while it is half made."""


@dataclass(frozen=True, slots=True)
class State:
    """One lab's directory. It exists as long as anything of the lab may exist."""

    directory: Path

    @staticmethod
    def of_environment() -> "State":
        """The directory that VMFABRIC_LAB_DIR names, or the default."""
        return State(Path(os.environ.get(DIRECTORY_VARIABLE, DEFAULT_DIRECTORY)).absolute())

    @property
    def logs(self) -> Path:
        """One file for each process."""
        return self.directory / "logs"

    @property
    def pids(self) -> Path:
        """What became of each program that was started, one file each. The supervisor writes them."""
        return self.directory / "pids"

    @property
    def orders(self) -> Path:
        """One file for each program that should run. Commands write them."""
        return self.directory / "orders"

    def of_service(self, host: str, service: str) -> Path:
        """Where a service on a host keeps its own files."""
        return self.directory / "hosts" / host / service

    def record(self) -> Record | None:
        """What was written, or None when there is no lab. LabError when it cannot be understood."""
        try:
            return Record.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise LabError(
                f"{self._file} was written by another version of vmfabric; take the lab down with that one"
            ) from error

    def write(self, record: Record) -> None:
        """Keep the record."""
        self.replace(self._file, record.model_dump_json(indent=2))

    @staticmethod
    def replace(path: Path, text: str) -> None:
        """Write a file; who reads it meanwhile, or kills the writer, finds the old text or the new one."""
        draft = path.with_suffix(".new")
        draft.write_text(text)
        draft.rename(path)

    def remove(self) -> None:
        """Remove the directory, the record last."""
        if not self.directory.exists():
            return
        for entry in self.directory.iterdir():
            if entry == self._file:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        self._file.unlink(missing_ok=True)
        self.directory.rmdir()

    def remove_if_empty(self) -> None:
        """Remove the directory when nothing is in it."""
        if not any(self.directory.iterdir()):
            self.directory.rmdir()

    def refuse_foreign(self) -> None:
        """LabError when there are files in the directory: the lab removes its directory with all that is in it."""
        if any(self.directory.iterdir()):
            raise LabError(
                f"{self.directory} holds files that are no lab's; set {DIRECTORY_VARIABLE} to a directory that is "
                "empty or does not exist"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the directory, until this process ends. LabError when another command works on the same lab."""
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle = os.open(self.directory, os.O_RDONLY)
        try:
            self._lock(handle)
            yield
        finally:
            os.close(handle)

    def _lock(self, handle: int) -> None:
        # A killed command's lock is held a moment longer by a child that it was just starting.
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise LabError(
                        f"another command is making or removing the lab in {self.directory}; wait for it"
                    ) from error
                time.sleep(0.02)
            else:
                return

    @property
    def _file(self) -> Path:
        return self.directory / "lab.json"
