"""VMs that nobody moves or removes, pinged all the time: when did they not answer?"""

import asyncio
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from outside.cluster import Address
from vmfabric.lab import namespaces
from vmfabric.lab.lab import Lab
from vmfabric.lab.pings import EVERY_SECONDS

_REPLY = re.compile(r"^\[(\d+\.\d+)\].* icmp_seq=(\d+) ttl=")
"""`ping -D` says itself when an answer came: who reads its lines may be late."""
_JUST_NOW_SECONDS = 0.2
_WRAP = 1 << 16
"""ICMP sequence numbers have 16 bits."""


@dataclass
class Timeline:
    """Of one VM; times are time.monotonic()."""

    vm: str
    begun: float = 0.0
    ended: float = 0.0
    answered: dict[int, float] = field(default_factory=dict)
    """When the answer to each packet came, by its number."""

    @property
    def sent(self) -> int:
        """Those that had the time to be answered."""
        return max(self.answered, default=0)

    def answers(self, now: float) -> bool:
        """Whether an answer has come just now."""
        return bool(self.answered) and now - self.answered[self.sent] < _JUST_NOW_SECONDS

    def lost(self) -> Iterator[float]:
        """About when each packet that was not answered was sent."""
        last = self.begun
        for number in range(1, self.sent + 1):
            at = self.answered.get(number)
            if at is None:
                last += EVERY_SECONDS
                yield last
            else:
                last = at


@asynccontextmanager
async def pinged(lab: Lab, vm: str, address: Address) -> AsyncIterator[Timeline]:
    """One packet every 10 ms from the core, while the block lasts."""
    timeline = Timeline(vm, begun=time.monotonic())
    command = namespaces.inside(lab.namespace("core"), "ping", "-D", "-n", "-i", str(EVERY_SECONDS), str(address))
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    reading = asyncio.create_task(_follow(process.stdout, timeline)) if process.stdout else None
    try:
        yield timeline
    finally:
        timeline.ended = time.monotonic()
        process.send_signal(signal.SIGINT)
        await process.wait()
        if reading is not None:
            await reading


async def _follow(lines: asyncio.StreamReader, timeline: Timeline) -> None:
    highest = 0
    since_boot = time.monotonic() - time.time()
    while line := await lines.readline():
        found = _REPLY.search(line.decode())
        if found is None:
            continue
        number = int(found.group(2))
        number += (highest - number + _WRAP // 2) // _WRAP * _WRAP
        highest = max(highest, number)
        timeline.answered[number] = float(found.group(1)) + since_boot
