"""A data centre without services, and an announcer on its first node."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import pytest

from vmfabric.bgp_announcer.announcer import Announcer
from vmfabric.bgp_announcer.ports import Frr
from vmfabric.contract.addresses import Family, parse_host
from vmfabric.contract.bgp import BgpTimers, Reflector
from vmfabric.contract.cluster import Gateway, Virtualization
from vmfabric.contract.desired import DesiredPools, DesiredVm, FabricNode, PointToPoint, Presence
from vmfabric.contract.envelope import Trace
from vmfabric.contract.model import Event
from vmfabric.lab import making as labs
from vmfabric.lab.lab import Lab
from vmfabric.lab.testing import own_state, own_topology
from vmfabric.runtime.clock import Clock, SystemClock
from vmfabric.runtime.desired import Revised
from vmfabric.runtime.snapshot import Confirmations


def pools(*blocks: str, lengths: Mapping[str, int] | None = None) -> DesiredPools:
    return DesiredPools(
        cluster="msk",
        prefixes=tuple(map(ip_network, blocks)),
        lengths={ip_network(block): length for block, length in (lengths or {}).items()},
    )


POOLS = pools("198.51.100.0/24", "2001:db8:100::/64")


def a_node(**changes: object) -> FabricNode:
    node = FabricNode(
        cluster="msk",
        node="n1",
        asn=65000,
        address=parse_host("10.0.0.1"),
        reflectors=tuple(Reflector(address=parse_host(f"10.0.0.{n}"), asn=65000) for n in (11, 12)),
        community={Family.IPV4: "65000:100", Family.IPV6: "65000:600"},
        timers=BgpTimers(),
        gateway=Gateway(),
    )
    return node.model_copy(update=changes)


def a_vm(number: int = 7, presence: Presence = Presence.ROUTED, generation: int = 1) -> DesiredVm:
    return DesiredVm(
        cluster="msk",
        node="n1",
        vm=f"vm{number}",
        generation=generation,
        presence=presence,
        mac="02:00:00:00:00:01",
        addresses=(parse_host(f"198.51.100.{number}"), parse_host(f"2001:db8:100::{number}")),
        guest_addresses=(),
        virtualization=Virtualization.LXD,
        wiring=PointToPoint(gateway=Gateway()),
        trace_id="0" * 32,
    )


@dataclass
class View:
    """The desired state, set by the test."""

    node: Revised[FabricNode] | None = field(default_factory=lambda: Revised(1, a_node()))
    pools: Revised[DesiredPools] | None = field(default_factory=lambda: Revised(1, POOLS))
    wanted: dict[str, Revised[DesiredVm]] = field(default_factory=dict)
    complete: bool = True
    revision: int = 0

    @property
    def vms(self) -> Mapping[str, Revised[DesiredVm]]:
        return self.wanted

    def want(self, vm: DesiredVm) -> None:
        self.revision += 1
        self.wanted[vm.vm] = Revised(self.revision, vm)

    def configure(self, node: FabricNode, pools: DesiredPools = POOLS) -> None:
        self.node = Revised(1, node)
        self.pools = Revised(1, pools)


@dataclass
class Bus:
    """Remembers what is published."""

    facts: list[Event] = field(default_factory=list)

    async def publish(self, event: Event, trace: Trace) -> None:
        del trace
        self.facts.append(event)

    def of(self, kind: type[Event]) -> list[Event]:
        return [fact for fact in self.facts if isinstance(fact, kind)]


def an_announcer(view: View, frr: Frr, bus: Bus, directory: Path, clock: Clock | None = None) -> Announcer:
    confirmations = Confirmations(directory / "confirmed.json")
    return Announcer(
        view,
        frr,
        publisher=bus,
        confirmations=confirmations,
        sessions=directory / "sessions.json",
        clock=clock or SystemClock(),
    )


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with own_state() as state:
        yield labs.up(own_topology("b"), state, with_services=False)
