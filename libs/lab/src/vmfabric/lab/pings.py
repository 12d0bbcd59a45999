"""A stream of pings, to count what a change loses."""

import asyncio
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from vmfabric.lab import namespaces
from vmfabric.lab.errors import LabError
from vmfabric.lab.hosts import answers_ping
from vmfabric.lab.lab import Lab

EVERY_SECONDS = 0.01
_SUMMARY = re.compile(r"(\d+) packets transmitted, (\d+) received")
_ANSWER = re.compile(r"icmp_seq=(\d+) ttl=")
_WRAP = 1 << 16
"""ICMP sequence numbers have 16 bits."""


@dataclass
class Pings:
    """The counts are there when the stream has ended."""

    sent: int = 0
    """Without those that were still on their way when it ended."""
    received: int = 0
    text: list[str] = field(default_factory=list)
    """What ping printed; `no answer` in a line names a packet that was lost."""

    @property
    def lost(self) -> int:
        """Those without an answer."""
        return self.sent - self.received


@asynccontextmanager
async def pinged(lab: Lab, host: str, address: IPv4Address | IPv6Address) -> AsyncIterator[Pings]:
    """Ping it from a host, one packet every 10 ms, while the block lasts. LabError when ping itself fails."""
    pings = Pings()
    command = namespaces.inside(lab.namespace(host), "ping", "-n", "-O", "-i", str(EVERY_SECONDS), str(address))
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield pings
    finally:
        is_answered = await asyncio.to_thread(answers_ping, lab, host, address)
        process.send_signal(signal.SIGINT)
        output, _ = await asyncio.wait_for(process.communicate(), 10)
    text = output.decode()
    found = _SUMMARY.search(text)
    if found is None:
        raise LabError(f"ping of {address} from {host} has not counted: {text[-500:]}")
    pings.text = text.splitlines()
    pings.sent, pings.received = map(int, found.groups())
    if is_answered:
        pings.sent -= _unanswered_at_the_end(pings)


def _unanswered_at_the_end(pings: Pings) -> int:
    """Packets after the last that was answered. When one that was sent later was answered, they are on their way."""
    answers = (found for line in reversed(pings.text) if (found := _ANSWER.search(line)))
    last = next(answers, None)
    return (pings.sent - int(last.group(1))) % _WRAP if last else 0
