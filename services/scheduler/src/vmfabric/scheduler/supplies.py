"""What ipam's pools have for the VMs of each node, as it said a moment ago, less what was placed since."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from vmfabric.contract.addressing import FreeAddresses, FreeInPool, ListFree
from vmfabric.contract.errors import Refused, TryAgain
from vmfabric.contract.names import ClusterName
from vmfabric.runtime.clock import Clock
from vmfabric.runtime.micro import Ask
from vmfabric.scheduler.domain.changes import NodeKey
from vmfabric.scheduler.domain.record import VmKey
from vmfabric.scheduler.domain.supply import Needs, Supply

_FRESH_SECONDS = 1.0
_FRESH_WITHOUT_RANGES_SECONDS = 10.0
"""Where every node has the same there is nothing to count; but ranges may be given meanwhile."""
_KEPT_SECONDS = 60.0
"""Whoever has looked may have to wait before it places."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Answer:
    asked_at: float
    pools: Sequence[FreeInPool]
    """Empty: nothing is known, or there is nothing."""

    @property
    def has_ranges(self) -> bool:
        """Whether it tells nodes apart."""
        return any(pool.nodes is not None for pool in self.pools)

    def is_fresh(self, now: float) -> bool:
        """Whether it will do."""
        wait = _FRESH_WITHOUT_RANGES_SECONDS if self.pools and not self.has_ranges else _FRESH_SECONDS
        return now - self.asked_at < wait


class _Claim(NamedTuple):
    at: float
    needs: Needs


class Supplies:
    """Where it knows nothing, no node is refused: ipam itself says no."""

    def __init__(self, ask: Ask, clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._answers: dict[ClusterName, _Answer] = {}
        self._claims: defaultdict[NodeKey, dict[VmKey, _Claim]] = defaultdict(dict)
        self._asking = asyncio.Lock()

    async def look(self, cluster: ClusterName) -> None:
        """Have an answer that is fresh; many may ask for it at once."""
        if self._is_known(cluster):
            return
        async with self._asking:
            if not self._is_known(cluster):
                await self._hear(cluster)

    def of(self, node: NodeKey) -> Supply | None:
        """None where nothing is known, or every node has the same."""
        answer = self._answers.get(node.cluster)
        if answer is None or not answer.has_ranges:
            return None
        supply = Supply.on(node.node, answer.pools)
        for claim in self._claims.get(node, {}).values():
            supply = supply.without(claim.needs)
        return supply

    def claim(self, key: VmKey, node: NodeKey, needs: Needs) -> None:
        """A VM was placed. The same one again, after a transaction that came to nothing, counts once."""
        if self._answers.get(node.cluster) is not None:
            self._claims[node][key] = _Claim(self._clock.monotonic(), needs)

    def _is_known(self, cluster: ClusterName) -> bool:
        answer = self._answers.get(cluster)
        return answer is not None and answer.is_fresh(self._clock.monotonic())

    async def _hear(self, cluster: ClusterName) -> None:
        asked_at = self._clock.monotonic()
        pools: Sequence[FreeInPool] = ()
        try:
            pools = (await self._ask("pool.free", ListFree(cluster=cluster), FreeAddresses)).pools
        except (TryAgain, Refused) as error:
            log.info("supplies.unknown", cluster=cluster, reason=error.sentence)
        self._answers = {
            name: answer for name, answer in self._answers.items() if asked_at - answer.asked_at < _KEPT_SECONDS
        }
        self._answers[cluster] = _Answer(asked_at, pools)
        # ipam has counted what was placed before it was asked; to what was still on its way to it, it says no itself.
        for node in [node for node in self._claims if node.cluster == cluster]:
            since = {key: claim for key, claim in self._claims[node].items() if claim.at >= asked_at}
            if since:
                self._claims[node] = since
            else:
                del self._claims[node]
