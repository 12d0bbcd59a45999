"""QEMU's own protocol: a JSON object to a line, answers and events in one stream."""

import asyncio
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vmfabric.lab.errors import LabError

_ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class QemuEvent:
    """What QEMU says by itself."""

    name: str
    at: float
    """When, by the machine's clock, in seconds: comparable between the QEMUs of one machine."""
    data: Mapping[str, Any]


@dataclass
class Qmp:
    """A conversation with one QEMU, for one task: whoever asks also reads the events that come meanwhile."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    events: list[QemuEvent] = field(default_factory=list)
    """Everything it has said, in order."""

    @staticmethod
    async def open(end: socket.socket) -> "Qmp":
        """Greet the QEMU that has the other end of this socket."""
        qmp = Qmp(*await asyncio.open_connection(sock=end))
        async with asyncio.timeout(_ANSWER_SECONDS):
            await qmp._line()  # its greeting
        await qmp.execute("qmp_capabilities")
        return qmp

    async def execute(self, command: str, **arguments: object) -> Any:
        """What it answers. LabError when it refuses, or has ended."""
        # QMP spells its arguments with dashes.
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.writer.write(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        async with asyncio.timeout(_ANSWER_SECONDS):
            while True:
                said = await self._line()
                if "error" in said:
                    raise LabError(f"QEMU refuses {command}: {said['error']['desc']}")
                if "return" in said:
                    return said["return"]

    async def event(self, name: str, *, seconds: float = 30.0, **data: object) -> QemuEvent:
        """The first event of this name with these data, heard already or to come. LabError when none is."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for event in self.events:
                        if event.name == name and data.items() <= event.data.items():
                            return event
                    await self._line()
        except TimeoutError as error:
            heard = ", ".join(f"{event.name} {dict(event.data)}" for event in self.events) or "nothing"
            raise LabError(f"QEMU has not said {name} {data} within {seconds:.0f} s, but {heard}") from error

    def close(self) -> None:
        """Hang up; QEMU goes on."""
        self.writer.close()

    async def _line(self) -> Mapping[str, Any]:
        try:
            line = await self.reader.readline()
        except ConnectionError:  # it has ended without reading what it was asked
            line = b""
        if not line:
            raise LabError("QEMU has ended")
        said: Mapping[str, Any] = json.loads(line)
        if "event" in said:
            stamp = said["timestamp"]
            at = stamp["seconds"] + stamp["microseconds"] / 1e6
            self.events.append(QemuEvent(said["event"], at, said.get("data", {})))
        return said
