"""What time it is, by the clocks that go on while no node-agent runs."""

import time
from pathlib import Path

from vmfabric.node_agent.domain.move_journal import Moment

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def now() -> Moment:
    """Of this machine."""
    return Moment(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), _BOOT.read_text().strip())
