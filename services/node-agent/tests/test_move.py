"""The uplink's way into the bridge, on a kernel in memory."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmfabric.contract.desired import SwitchingNode
from vmfabric.node_agent.domain.actual import Actual, Held, HeldAddress, HeldRoute, Interest
from vmfabric.node_agent.domain.move_journal import Moment
from vmfabric.node_agent.domain.neighbour import Question
from vmfabric.node_agent.domain.operations import Failure, Operation
from vmfabric.node_agent.samples import A_MOMENT, a_switching_node
from vmfabric.node_agent.simulated import SimulatedKernel, an_uplink
from vmfabric.node_agent.uplink import UplinkMove

GATEWAY, GATEWAY6 = ip_address("192.0.2.254"), ip_address("2001:db8:ff::254")
HAS = Held(
    (
        HeldAddress(ip_interface("192.0.2.1/24"), broadcast=IPv4Address("192.0.2.255")),
        HeldAddress(ip_interface("192.0.2.7/24")),
        HeldAddress(ip_interface("2001:db8:ff::1/64")),
    ),
    (
        HeldRoute(ip_network("0.0.0.0/0"), GATEWAY, metric=100),
        HeldRoute(ip_network("198.51.100.0/24"), ip_address("192.0.2.253"), protocol=3),
        HeldRoute(ip_network("::/0"), GATEWAY6, metric=1024),
    ),
)


class KilledError(Exception):
    """As by a signal: nothing that comes after it happens."""


@dataclass
class Mortal:
    """The kernel, as a process reaches it that is killed after so many calls that change or ask something."""

    kernel: SimulatedKernel
    calls: int = 10_000
    refused: str = "nothing"
    """Operations that begin with this."""
    dies_asking: bool = False
    asked: list[float] = field(default_factory=list)
    """For how many seconds gateways were waited for."""

    async def read(self, interest: Interest) -> Actual:
        return await self.kernel.read(interest)

    async def apply(self, operations: list[Operation]) -> tuple[Failure, ...]:
        self._live()
        if any(str(it).startswith(self.refused) for it in operations):
            return tuple(Failure(it, "no") for it in operations)
        return await self.kernel.apply(operations)

    async def ask(self, interface: str, question: Question, seconds: float) -> bool:
        self._live()
        self.asked.append(seconds)
        if self.dies_asking:
            raise KilledError
        return await self.kernel.ask(interface, question, seconds)

    def _live(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise KilledError


@dataclass
class Node:
    directory: Path
    now: Moment = field(default_factory=lambda: replace(A_MOMENT, boot="first"))
    wanted: SwitchingNode | None = field(default_factory=lambda: a_switching_node(confirm_seconds=1))
    kernel: SimulatedKernel = field(
        default_factory=lambda: SimulatedKernel(
            uplinks={"uplink": an_uplink(ip_interface("192.0.2.1/24"))},
            holdings={"uplink": HAS},
            answering={GATEWAY},
        )
    )

    asked: list[float] = field(default_factory=list)

    async def is_killed_when_it_asks(self) -> None:
        with pytest.raises(KilledError):
            await self.live(dies_asking=True)

    async def live(self, calls: int = 10_000, *, refused: str = "nothing", dies_asking: bool = False) -> str | None:
        """One life of the agent. Returns what is in the way."""
        self.asked = []
        mortal = Mortal(self.kernel, calls, refused, dies_asking, self.asked)
        move = UplinkMove(mortal, self.directory / "journal", lambda: self.now)  # type: ignore[arg-type]
        moved = await move.step(self.wanted, self.kernel.actual(), Interest())
        return moved.problem

    def retries(self) -> str:
        """An operator asks for it while an agent lives."""
        return UplinkMove(self.kernel, self.directory / "journal", lambda: self.now).retry(self.wanted)

    def passes(self, seconds: float) -> None:
        self.now = replace(self.now, wall=self.now.wall + seconds, since_boot=self.now.since_boot + seconds)

    def reboots(self) -> None:
        self.now = replace(self.now, since_boot=1.0, boot="second")

    def plug_in(self) -> None:
        """A port of a VM."""
        bridge = self.kernel.links["vmbr0"]
        self.kernel.links["vnet1"] = replace(bridge, name="vnet1", index=7, kind="tun", master="vmbr0", bridge=None)

    def is_moved(self) -> bool:
        there = self.kernel.holdings.get("vmbr0", Held())
        return (
            self.kernel.uplinks["uplink"].master == "vmbr0"
            and self.kernel.links["vmbr0"].up
            and self.kernel.holdings["uplink"] == Held()
            and (set(there.addresses), set(there.routes)) == (set(HAS.addresses), set(HAS.routes))
        )

    def is_as_before(self) -> bool:
        has = self.kernel.holdings["uplink"]
        is_so = (has.addresses, set(has.routes)) == (HAS.addresses, set(HAS.routes))
        return self.kernel.links == {} and is_so

    def is_reached(self) -> bool:
        """Whether each address and route of the node is somewhere."""
        everywhere = [it for its in self.kernel.holdings.values() for it in (*its.addresses, *its.routes)]
        return set(everywhere) == {*HAS.addresses, *HAS.routes}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_an_uplink_moves_once(node: Node) -> None:
    assert await node.live() is None
    assert node.is_moved()
    assert node.kernel.links["vmbr0"].mac == "02:00:00:00:00:fe"
    writes = node.kernel.writes
    assert await node.live() is None
    assert node.kernel.writes == writes


async def test_an_uplink_whose_gateway_is_silent_is_taken_back_and_tried_again_when_the_node_changes(
    node: Node,
) -> None:
    node.kernel.answering = set()
    problem = await node.live()
    assert problem is not None
    assert "gateway 192.0.2.254 did not answer within 1 s" in problem
    assert node.is_as_before()
    writes = node.kernel.writes
    node.kernel.answering = {GATEWAY}
    assert await node.live() == problem
    assert node.kernel.writes == writes
    node.wanted = a_switching_node(confirm_seconds=2)
    assert await node.live() is None
    assert node.is_moved()


async def test_a_bridge_that_has_ports_of_vms_stays_when_the_uplink_is_taken_back(node: Node) -> None:
    await node.live()
    node.plug_in()
    (node.directory / "journal").unlink()
    node.kernel.uplinks["uplink"] = replace(node.kernel.uplinks["uplink"], master=None)
    node.kernel.answering = set()
    assert await node.live() is not None
    assert node.kernel.holdings["uplink"] == HAS
    assert node.kernel.holdings["vmbr0"] == Held()
    assert node.kernel.links["vnet1"].master == "vmbr0"


async def test_an_uplink_that_was_taken_back_is_tried_again_after_five_minutes(
    node: Node,
) -> None:
    node.kernel.answering = set()
    await node.live()
    node.kernel.answering = {GATEWAY}
    node.passes(301)
    assert await node.live() is None
    assert node.is_moved()


async def test_a_node_without_a_gateway_asks_nobody(node: Node) -> None:
    node.kernel.holdings["uplink"] = Held(HAS.addresses, ())
    node.kernel.answering = set()
    assert await node.live() is None
    assert node.kernel.uplinks["uplink"].master == "vmbr0"


async def test_a_node_with_an_ipv6_gateway_only_asks_that(node: Node) -> None:
    node.kernel.holdings["uplink"] = Held(HAS.addresses, HAS.routes[2:])
    node.kernel.answering = {GATEWAY6}
    assert await node.live() is None
    assert node.kernel.uplinks["uplink"].master == "vmbr0"


async def test_what_somebody_undoes_is_moved_again(node: Node) -> None:
    await node.live()
    node.kernel.uplinks["uplink"] = replace(node.kernel.uplinks["uplink"], master=None)
    node.kernel.holdings["uplink"] = Held(HAS.addresses[:1], HAS.routes[:1])
    assert await node.live() is None
    assert node.is_moved()


async def test_a_bridge_that_somebody_deletes_is_made_again_with_all_that_it_had(node: Node) -> None:
    await node.live()
    node.kernel.delete_link("vmbr0")
    assert await node.live() is None
    assert node.is_moved()


async def test_a_strangers_bridge_is_left_alone(node: Node) -> None:
    await node.live()
    node.kernel.links["vmbr0"] = replace(node.kernel.links["vmbr0"], alias=None, group=0)
    writes = node.kernel.writes
    assert await node.live() is None, "the uplink is in it, which is all that is wanted"
    node.kernel.uplinks["uplink"] = replace(node.kernel.uplinks["uplink"], master=None)
    problem = await node.live()
    assert problem is not None
    assert "vmbr0 is there, is not vmfabric's" in problem
    assert node.kernel.writes == writes


async def test_without_the_nodes_address_nothing_is_moved(node: Node) -> None:
    node.kernel.holdings["uplink"] = Held(HAS.addresses[2:], ())
    problem = await node.live()
    assert problem is not None
    assert "192.0.2.1 should be on its uplink uplink, which has 2001:db8:ff::1/64" in problem
    assert node.kernel.writes == 0


async def test_a_route_that_cannot_be_moved_is_named_and_nothing_is_moved(node: Node) -> None:
    strange = replace(HAS.routes[1], is_plain=False)
    node.kernel.holdings["uplink"] = Held(HAS.addresses, (HAS.routes[0], strange))
    problem = await node.live()
    assert problem is not None
    assert "the route to 198.51.100.0/24 over uplink is not in the main table, or has several next hops" in problem
    assert node.kernel.writes == 0


@pytest.mark.parametrize(
    "refused", ["put route 0.0.0.0/0 via 192.0.2.254 on vmbr0", "take address 192.0.2.7/24 from uplink", "set"]
)
async def test_what_is_refused_amid_the_move_is_taken_back_and_told(node: Node, refused: str) -> None:
    problem = await node.live(refused=refused)
    assert problem is not None
    assert "uplink was on its way into vmbr0" in problem
    assert refused in problem
    assert node.is_as_before()


async def test_what_is_refused_on_the_way_back_is_tried_again(node: Node) -> None:
    node.kernel.answering = set()
    refused = "put route 198.51.100.0/24 via 192.0.2.253 on uplink"
    for _pass in range(3):
        problem = await node.live(refused=refused)
        assert problem is not None
        assert refused in problem
        assert node.kernel.uplinks["uplink"].master is None
        assert set(node.kernel.holdings["uplink"].routes) == {HAS.routes[0], HAS.routes[2]}
        assert node.kernel.links == {}
    await node.live()
    assert set(node.kernel.holdings["uplink"].routes) == set(HAS.routes)


async def test_an_uplink_that_does_not_come_to_rest_is_taken_back(node: Node) -> None:
    class Stubborn(SimulatedKernel):
        def carry_out(self, operation: Operation) -> None:
            super().carry_out(operation)
            if self.uplinks["uplink"].master is not None:
                self.holdings["uplink"] = HAS

    node.kernel = Stubborn(uplinks=node.kernel.uplinks, holdings=node.kernel.holdings, answering={GATEWAY})
    problem = await node.live()
    assert problem is not None
    assert "does not come to rest" in problem
    assert node.is_as_before()


async def test_a_gateway_behind_a_route_of_the_link_moves_with_it(node: Node) -> None:
    gateway = ip_address("203.0.113.1")
    default, link = HeldRoute(ip_network("0.0.0.0/0"), gateway), HeldRoute(ip_network("203.0.113.1/32"), scope=253)
    node.kernel.holdings["uplink"] = Held((HeldAddress(ip_interface("192.0.2.1/32")),), (default, link))
    node.kernel.answering = {gateway}
    assert await node.live() is None
    assert set(node.kernel.holdings["vmbr0"].routes) == {default, link}


async def test_two_routes_of_which_one_would_replace_the_other_are_named_and_nothing_is_moved(node: Node) -> None:
    other = replace(HAS.routes[2], gateway=ip_address("fe80::2"))
    node.kernel.holdings["uplink"] = Held(HAS.addresses, (*HAS.routes, other))
    problem = await node.live()
    assert problem is not None
    assert "several routes to ::/0 with the metric 1024 over uplink" in problem
    assert node.kernel.writes == 0


async def test_of_two_default_routes_that_somebody_gave_to_both_that_of_the_nic_stays(node: Node) -> None:
    await node.live()
    other = replace(HAS.routes[0], gateway=ip_address("192.0.2.253"))
    node.kernel.holdings = {"vmbr0": Held(HAS.addresses, (other,)), "uplink": Held(HAS.addresses[:1], HAS.routes[:1])}
    assert await node.live() is None
    assert node.kernel.holdings["vmbr0"].routes == HAS.routes[:1]


async def test_an_address_that_somebody_gave_to_both_differently_comes_to_rest(node: Node) -> None:
    await node.live()
    node.kernel.holdings["uplink"] = Held((HeldAddress(ip_interface("192.0.2.1/24")),), ())
    assert await node.live() is None
    assert node.kernel.holdings["uplink"] == Held()


async def test_an_address_that_somebody_takes_from_the_bridge_comes_back_with_the_default_routes(node: Node) -> None:
    await node.live()
    node.kernel.holdings["vmbr0"] = Held(HAS.addresses[2:], ())
    assert await node.live() is None
    there = node.kernel.holdings["vmbr0"]
    assert set(there.addresses) == {HAS.addresses[0], HAS.addresses[2]}
    assert set(there.routes) == {HAS.routes[0], HAS.routes[2]}


async def test_another_address_that_an_operator_takes_from_the_bridge_stays_away(node: Node) -> None:
    await node.live()
    node.kernel.holdings["vmbr0"] = Held(HAS.addresses[:1], HAS.routes[:1])
    writes = node.kernel.writes
    assert await node.live() is None
    assert node.kernel.writes == writes


async def test_what_an_operator_has_removed_does_not_come_back_after_a_reboot(node: Node) -> None:
    await node.live()
    node.kernel.delete_link("vmbr0")
    node.kernel.holdings = {"uplink": Held(HAS.addresses[:1], HAS.routes[:1])}
    node.reboots()
    assert await node.live() is None
    assert node.kernel.holdings["vmbr0"] == Held(HAS.addresses[:1], HAS.routes[:1])


@pytest.mark.parametrize("answers", [True, False])
async def test_a_move_that_a_reboot_ended_begins_anew(node: Node, answers: bool) -> None:
    with pytest.raises(KilledError):
        await node.live(9)
    node.kernel.delete_link("vmbr0")
    node.kernel.holdings = {"uplink": Held(HAS.addresses[:1], HAS.routes[:1])}
    node.reboots()
    node.kernel.answering = {GATEWAY} if answers else set()
    await node.live()
    assert node.kernel.holdings["vmbr0" if answers else "uplink"] == Held(HAS.addresses[:1], HAS.routes[:1])


async def test_a_moved_uplink_is_mended_although_the_bridge_has_a_route_that_cannot_be_moved(node: Node) -> None:
    await node.live()
    strange = HeldRoute(ip_network("203.0.113.0/24"), is_plain=False)
    node.kernel.holdings["vmbr0"] = Held(HAS.addresses, (*HAS.routes, strange))
    node.kernel.uplinks["uplink"] = replace(node.kernel.uplinks["uplink"], master=None)
    assert await node.live() is None
    assert node.kernel.uplinks["uplink"].master == "vmbr0"
    assert strange in node.kernel.holdings["vmbr0"].routes


async def test_what_was_confirmed_once_and_has_vms_stays_though_the_gateway_is_silent_and_it_is_asked_again(
    node: Node,
) -> None:
    await node.live()
    node.plug_in()
    node.kernel.uplinks["uplink"] = replace(node.kernel.uplinks["uplink"], master=None)
    node.kernel.answering = set()
    for _pass in range(2):
        problem = await node.live()
        assert problem is not None
        assert "the gateway 192.0.2.254 did not answer within 1 s, and where it stays" in problem
        assert node.is_moved()
    node.passes(301)
    assert await node.live() == problem
    node.kernel.answering = {GATEWAY}
    node.passes(399)
    assert await node.live() is None
    assert await node.live() is None
    assert node.is_moved()


async def test_a_full_disk_amid_the_move_does_not_keep_an_uplink_from_being_taken_back(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Silent(SimulatedKernel):
        async def ask(self, interface: str, question: Question, seconds: float) -> bool:  # noqa: ARG002
            monkeypatch.setattr("vmfabric.node_agent.uplink.save", lambda *_: False)
            asked.append(question)
            return False

    node.kernel = Silent(uplinks=node.kernel.uplinks, holdings=node.kernel.holdings)
    problem = await node.live()
    assert problem is not None
    assert "did not answer within 1 s, so all of it was taken back" in problem
    assert node.is_as_before()
    assert len(asked) == 1


async def test_on_a_full_disk_nothing_is_moved(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmfabric.node_agent.uplink.save", lambda *_: False)
    problem = await node.live()
    assert problem is not None
    assert "cannot be written, and no uplink is moved without it" in problem
    assert node.kernel.writes == 0


async def test_a_changed_uplink_leaves_the_bridge_before_another_gets_in(node: Node) -> None:
    await node.live()
    node.kernel.uplinks["second"] = replace(node.kernel.uplinks["uplink"], name="second", index=2, master=None)
    node.wanted = a_switching_node(uplink="second")
    problem = await node.live()
    assert problem is not None
    assert "192.0.2.1 should be on its uplink second, which has none" in problem
    assert node.is_as_before()
    node.wanted = a_switching_node()
    assert await node.live() is None
    assert node.is_moved()
    node.wanted = a_switching_node(uplink="second")
    await node.live()
    node.kernel.holdings = {"second": HAS}
    assert await node.live() is None
    assert {name: link.master for name, link in node.kernel.uplinks.items()} == {"uplink": None, "second": "vmbr0"}


async def test_a_changed_bridge_gets_all_that_the_other_had(node: Node) -> None:
    await node.live()
    node.wanted = a_switching_node().model_copy(update={"bridge": "vmbr1"})
    assert await node.live() is None
    assert set(node.kernel.links) == {"vmbr1"}
    assert set(node.kernel.holdings["vmbr1"].addresses) == set(HAS.addresses)


@pytest.mark.parametrize(("bridge", "stays"), [("vmbr0", True), ("theirs", False)])
async def test_an_operator_who_names_another_bridge_as_his_own_gets_the_uplink_back(
    node: Node, bridge: str, stays: bool
) -> None:
    """And keeps ours where he makes that his own."""
    await node.live()
    node.wanted = a_switching_node(uplink=None).model_copy(update={"bridge": bridge})
    await node.live()
    assert node.is_moved() == stays
    if not stays:
        assert set(node.kernel.holdings["uplink"].addresses) == set(HAS.addresses)
        assert await node.live() is None


async def test_a_new_nic_gets_into_the_bridge_of_one_that_is_gone(node: Node) -> None:
    await node.live()
    node.kernel.uplinks = {"second": replace(node.kernel.uplinks["uplink"], name="second", index=2, master=None)}
    node.wanted = a_switching_node(uplink="second")
    assert await node.live() is None
    assert node.kernel.uplinks["second"].master == "vmbr0"
    assert set(node.kernel.holdings["vmbr0"].routes) == set(HAS.routes)


async def test_an_uplink_that_is_missing_is_named(node: Node) -> None:
    node.kernel.uplinks = {}
    problem = await node.live()
    assert problem is not None
    assert "uplink should be uplink, and there is no such link" in problem


@given(st.lists(st.integers(0, 40), max_size=4), st.booleans())
async def test_an_agent_that_is_killed_at_any_moment_ends_what_it_began(lives: list[int], answers: bool) -> None:
    with TemporaryDirectory() as directory:
        node = Node(Path(directory))
        node.kernel.answering = {GATEWAY} if answers else set()
        for calls in lives:
            try:
                await node.live(calls)
            except KilledError:
                assert node.is_reached()
        problem = await node.live()
        assert (problem is None) == answers
        assert node.is_moved() if answers else node.is_as_before()


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0.01, 10)), max_size=12))
async def test_a_silent_move_is_taken_back_by_its_deadline_however_often_the_agent_is_killed(
    lives: list[tuple[int, float]],
) -> None:
    with TemporaryDirectory() as directory:
        node = Node(Path(directory), wanted=a_switching_node(confirm_seconds=10))
        node.kernel.answering = set()
        for calls, seconds in lives:
            with suppress(KilledError):
                await node.live(calls)
            node.passes(seconds)
            assert node.is_reached()
        node.passes(15)
        node.wanted = None
        await node.live()
        assert node.is_as_before()
        assert node.asked == []


async def test_a_restarted_agent_asks_the_gateway_only_for_what_is_left_of_the_time(node: Node) -> None:
    node.wanted = a_switching_node(confirm_seconds=10)
    await node.is_killed_when_it_asks()
    node.passes(12)
    await node.live()
    assert node.asked == [pytest.approx(3)]
    assert node.is_moved()


async def test_guests_that_were_reached_are_not_cut_off_because_the_agent_was_away(node: Node) -> None:
    await node.live()
    node.plug_in()
    node.kernel.uplinks["uplink"] = replace(node.kernel.uplinks["uplink"], master=None)
    await node.is_killed_when_it_asks()
    node.passes(3600)
    assert await node.live() is None
    assert node.is_moved()


async def test_an_uplink_that_was_taken_back_is_moved_at_once_when_an_operator_says_so(node: Node) -> None:
    node.kernel.answering = set()
    problem = await node.live()
    assert problem is not None
    assert "It is tried again with node.retry, when" in problem
    node.kernel.answering = {GATEWAY}
    assert node.retries() == "uplink is moved into vmbr0 again now"
    assert await node.live() is None
    assert node.is_moved()
    assert node.retries() == "nothing was given up here, so everything is only looked at once more"


async def test_a_silent_gateway_that_is_waited_for_is_asked_at_once_when_an_operator_says_so(node: Node) -> None:
    await node.live()
    node.plug_in()
    node.kernel.uplinks["uplink"] = replace(node.kernel.uplinks["uplink"], master=None)
    node.kernel.answering = set()
    assert await node.live() is not None
    node.kernel.answering = {GATEWAY}
    assert node.retries() == "the gateway behind vmbr0 is asked again now"
    assert await node.live() is None


async def test_an_uplink_on_its_way_back_is_not_called_back(node: Node) -> None:
    node.kernel.answering = set()
    await node.live(refused="put route 198.51.100.0/24 via 192.0.2.253 on uplink")
    assert node.retries() == "uplink is still on its way out of vmbr0; ask again when it is there"
    await node.live()
    assert node.is_as_before()
