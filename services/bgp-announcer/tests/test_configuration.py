"""What is written into FRR, line by line, and how it changes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmfabric.bgp_announcer.domain.configuration import wanted
from vmfabric.bgp_announcer.domain.lines import Line, parse
from vmfabric.bgp_announcer.domain.plan import plan
from vmfabric.bgp_announcer.frr.script import script
from vmfabric.bgp_announcer.simulated import SimulatedFrr
from vmfabric.contract.addresses import Family, parse_host
from vmfabric.contract.bgp import BgpTimers, Reflector
from vmfabric.contract.desired import DesiredPools, FabricNode
from vmfabric.contract.errors import Refused

from .conftest import POOLS, a_node, pools

GOLDEN = Path(__file__).with_name("golden")

CASES: dict[str, tuple[FabricNode, DesiredPools]] = {
    "two_reflectors": (a_node(), POOLS),
    "no_pools_yet": (a_node(), pools()),
    "password_bfd_and_timers": (
        a_node(password="p4ss;word", bfd=True, timers=BgpTimers(keepalive=60, hold=180, connect=120)),
        POOLS,
    ),
    "large_community": (a_node(community={Family.IPV4: "65000:1:2", Family.IPV6: "65000:600"}), POOLS),
    "going_down": (
        a_node(graceful_shutdown=True, community={Family.IPV4: "65000:1:2", Family.IPV6: "65000:600"}),
        POOLS,
    ),
    "pool_of_single_addresses": (a_node(), pools("203.0.113.7/32", "2001:db8::7/128")),
    "pool_of_prefixes": (
        a_node(),
        pools(
            *("2001:db8:100::/48", "2001:db8:200::/64", "2001:db8:300::/64"),
            lengths={"2001:db8:100::/48": 64, "2001:db8:200::/64": 64},
        ),
    ),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_an_empty_frr_is_given_this_configuration(case: str) -> None:
    text = script(plan(wanted(*CASES[case]), (), 65000))
    assert text == (GOLDEN / f"{case}.vtysh").read_text()


def test_a_running_configuration_is_read_with_its_sections() -> None:
    running = (GOLDEN / "running-config").read_text()
    assert plan(wanted(*CASES["two_reflectors"]), parse(running), 65000) == ()


def test_an_frr_of_another_as_is_left_alone() -> None:
    found = (Line((), "router bgp 64999"), Line(("router bgp 64999",), "bgp router-id 10.0.0.1"))
    with pytest.raises(Refused, match="AS 64999"):
        plan(wanted(a_node(), POOLS), found, 65000)


def test_what_is_not_ours_is_never_touched() -> None:
    router = ("router bgp 65000",)
    theirs = (
        Line((), "router bgp 65000"),
        Line(router, "neighbor 192.0.2.1 remote-as 64500"),
        Line(router, "neighbor uplink peer-group"),
        Line((*router, "address-family ipv4 unicast"), "network 192.0.2.0/24"),
        Line((), "ip prefix-list theirs seq 5 permit any"),
        Line((), "route-map theirs permit 10"),
        Line(("route-map theirs permit 10",), "set community 1:2"),
        Line(("vrf blue",), "ip route 10.0.0.0/8 192.0.2.1"),
    )
    changes = plan(wanted(a_node(), POOLS), theirs, 65000)
    assert not [
        change for change in changes if change.text.startswith("no ") and not change.text.startswith("no bgp")
    ]
    assert not [change for change in changes if "theirs" in change.text or "uplink" in change.text]


def test_a_password_is_not_shown() -> None:
    changes = plan(wanted(a_node(password="hush"), POOLS), (), 65000)
    assert "hush" not in " ".join(map(str, changes))


communities = st.builds("{}:{}".format, st.integers(0, 65535), st.integers(0, 65535))
nodes = st.builds(
    lambda reflectors, ipv4, ipv6, password, bfd, hold: a_node(
        reflectors=tuple(Reflector(address=parse_host(f"10.0.0.{n}"), asn=65000) for n in sorted(reflectors)),
        community={Family.IPV4: ipv4, Family.IPV6: ipv6},
        password=password,
        bfd=bfd,
        timers=BgpTimers(keepalive=hold // 3, hold=hold),
    ),
    st.sets(st.integers(11, 15), min_size=1),
    communities,
    communities,
    st.none() | st.from_regex(r"[!-~]{1,80}", fullmatch=True),
    st.booleans(),
    st.integers(3, 300),
)
blocks = st.sets(st.integers(0, 20)).map(lambda numbers: pools(*(f"10.{n}.0.0/16" for n in sorted(numbers))))


@given(st.lists(st.tuples(nodes, blocks), min_size=1, max_size=4), st.randoms(use_true_random=False))
async def test_every_change_converges_however_often_it_is_interrupted(
    states: list[tuple[FabricNode, DesiredPools]], random: "st.DataObject"
) -> None:
    frr = SimulatedFrr(dict)
    for node, own in states:
        should = wanted(node, own)
        for _ in range(3):
            changes = plan(should, await frr.running(), 65000)
            await frr.configure(changes[: random.randint(0, len(changes))])  # type: ignore[attr-defined]
        for _ in range(2):
            await frr.configure(plan(should, await frr.running(), 65000))
        assert plan(should, await frr.running(), 65000) == ()
        assert {line.place for line in await frr.running()} == {line.place for line in should if line.is_shown}
