"""When a route counts as withdrawn."""

from pathlib import Path

from vmfabric.bgp_announcer.simulated import SimulatedFrr
from vmfabric.contract.addresses import parse_host
from vmfabric.contract.dataplane import ROUTE_METRIC
from vmfabric.contract.desired import Presence
from vmfabric.contract.route import RouteWithdrawn
from vmfabric.reconcile.loop import Dirty

from .conftest import Bus, View, a_vm, an_announcer
from .test_deafness import HandClock

_SECONDS = 10


async def test_the_address_of_a_vm_that_is_gone_may_be_anothers_on_the_same_node(tmp_path: Path) -> None:
    """The node was lost with the first of them, which was removed meanwhile."""
    view, bus, clock = View(), Bus(), HandClock()
    frr = SimulatedFrr(lambda: dict.fromkeys(a_vm(7).prefixes(), ROUTE_METRIC))
    frr.up = {parse_host(f"10.0.0.{number}") for number in (11, 12)}
    announcer = an_announcer(view, frr, bus, tmp_path, clock)

    async def withdrawn() -> list[str]:
        for _ in range(_SECONDS):
            clock.seconds += 1
            await announcer.step(Dirty(frozenset(), all=True))
        return [fact.vm for fact in bus.facts if isinstance(fact, RouteWithdrawn)]

    view.want(a_vm(7, Presence.ABSENT, generation=2))
    assert await withdrawn() == []
    view.want(a_vm(7, Presence.ROUTED).model_copy(update={"vm": "vm8"}))
    assert await withdrawn() == ["vm7"]
