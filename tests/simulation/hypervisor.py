"""Whoever moves guests: it waits until the target is wired, and says when the guest runs there."""

from random import Random

from simulation.bus_server import Kept, Server
from simulation.virtual_time import VirtualLoop
from vmfabric.contract.guest import GuestRunning
from vmfabric.contract.iface import IfaceReady
from vmfabric.contract.vm import VmMigrating

_COPYING_SECONDS = 3.0
_NEVER = 0.15
_LATE = 0.15
_LATE_SECONDS = 40.0
"""Long after the migration was given up."""
_AGAIN_SECONDS = 0.5


class Hypervisor:
    """That of all nodes. Some guests never arrive, and some when nobody waits for them any more."""

    def __init__(self, server: Server, loop: VirtualLoop, random: Random) -> None:
        self._server = server
        self._loop = loop
        self._random = random
        self._awaited: dict[int, VmMigrating] = {}
        """By generation, until the target is wired."""
        self._arrived: set[int] = set()
        self.copying = 0
        """Guests that are still to arrive."""

    def kept(self, kept: Kept) -> None:
        """A fact is on the bus."""
        if kept.subject.startswith(f"{VmMigrating.subject_template.stem}."):
            move = VmMigrating.model_validate_json(kept.body)
            self._awaited.setdefault(move.generation, move)
        elif kept.subject.startswith(f"{IfaceReady.subject_template.stem}."):
            self._wired(IfaceReady.model_validate_json(kept.body))

    def _wired(self, fact: IfaceReady) -> None:
        if fact.generation in self._arrived:
            self._say(fact)
            return
        if self._awaited.pop(fact.generation, None) is None or self._random.random() < _NEVER:
            return
        self.copying += 1
        is_late = self._random.random() < _LATE
        seconds = self._random.uniform(0.0, _LATE_SECONDS if is_late else _COPYING_SECONDS)
        self._loop.outside(seconds, self._arrives, fact)

    def _arrives(self, fact: IfaceReady) -> None:
        self.copying -= 1
        self._arrived.add(fact.generation)
        self._say(fact)

    def _say(self, fact: IfaceReady) -> None:
        # Whoever moves guests may say which generation it was given, or not.
        generation = fact.generation if fact.generation % 2 else None
        event = GuestRunning(cluster=fact.cluster, vm=fact.vm, node=fact.node, generation=generation)
        if self._server.keep(event.subject(), event.model_dump_json().encode(), {}) is None:
            self._loop.outside(_AGAIN_SECONDS, self._say, fact)
