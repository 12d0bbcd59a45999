"""Platform services that create, delete and migrate VMs all the time."""

import asyncio
import json
from collections import Counter
from random import Random

import nats.errors

from outside.cluster import CLUSTER
from vmfabric.contract.admin import VmPhase, Vms, VmState
from vmfabric.contract.errors import Refused, TryAgain
from vmfabric.contract.names import VmName
from vmfabric.lab.client import LabClient

_SIZE = {"cpu": 1, "memory_mb": 64, "disk_gb": 1}
_AGAIN_SECONDS = 0.5
_AWAY = (nats.errors.Error, TimeoutError, OSError)


class Load:
    """One request after the other, for a few names that are used again and again."""

    def __init__(self, outside: LabClient, random: Random, *, names: int, per_second: float) -> None:
        self._outside = outside
        self._random = random
        self._per_second = per_second
        self.wanted: dict[VmName, bool] = {f"vm{number}": False for number in range(1, names + 1)}
        """Whether its creation or its removal was asked for last."""
        self.asked: Counter[str] = Counter()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until told to stop. A request is repeated until the bus keeps it, as whoever needs an answer does."""
        while not self._stopping.is_set():
            await asyncio.sleep(self._random.expovariate(self._per_second))
            states = await self.states()
            if states is not None:
                await self._ask(self._random.choice(sorted(self.wanted)), states)

    def stop(self) -> None:
        """Ask for nothing more, once the bus has kept what is being asked for."""
        self._stopping.set()

    async def states(self) -> dict[VmName, VmState] | None:
        """Every VM that is there; None when nobody answers."""
        try:
            found = await self._outside.ask("vm.list", {}, Vms)
        except (TryAgain, Refused, *_AWAY):
            return None
        return {state.vm: state for state in found.vms}

    async def create(self, vm: VmName, **changes: object) -> None:
        """Ask for it."""
        self.wanted[vm] = True
        await self._publish("vm.requested", {"cluster": CLUSTER, "vm": vm, **_SIZE, **changes})

    async def delete(self, vm: VmName) -> None:
        """Ask for its removal."""
        self.wanted[vm] = False
        await self._publish("vm.delete.requested", {"cluster": CLUSTER, "vm": vm})

    async def _ask(self, vm: VmName, states: dict[VmName, VmState]) -> None:
        state = states.get(vm)
        if state is None:
            await self.create(vm)
        elif state.phase is VmPhase.READY and self._random.random() < 0.6:
            await self._publish("vm.migrate.requested", {"cluster": CLUSTER, "vm": vm})
        elif state.phase is VmPhase.READY or self._random.random() < 0.2:
            await self.delete(vm)

    async def _publish(self, subject: str, body: dict[str, object]) -> None:
        self.asked[subject] += 1
        while True:
            try:
                await self._outside.publish(subject, json.dumps(body).encode())
            except _AWAY:
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return
