"""What a reflector sends to a node, next to what the node should have."""

from ipaddress import ip_network

import pytest

from vmfabric.contract.addresses import Prefix, parse_host
from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.contract.explanation import Finding, Reflected, ReflectedRoute
from vmfabric.scheduler.domain.reflection import Subject, compare

from .test_republish import a_desired

REFLECTOR, OTHER_REFLECTOR = parse_host("10.0.0.11"), parse_host("10.0.0.12")
N1 = Subject("n1", (parse_host("10.0.0.1"), parse_host("fd00:fab::1")))
PREFIX = ip_network("198.51.100.7/32")
ANNOUNCED = [presence for presence in Presence if presence.is_announced and presence is not Presence.FORWARDED]
SILENT = [presence for presence in Presence if not presence.is_announced]


def a_value(presence: Presence = Presence.ROUTED) -> DesiredVm:
    return a_desired(addresses=(PREFIX.network_address,), presence=presence)


def a_route(next_hop: str = "10.0.0.1", prefix: Prefix = PREFIX) -> ReflectedRoute:
    return ReflectedRoute(prefix=prefix, next_hop=parse_host(next_hop), local_preference=100)


def found(value: DesiredVm, *routes: ReflectedRoute) -> list[Finding]:
    return list(compare(N1, [value], Reflected(routes={REFLECTOR: routes})))


@pytest.mark.parametrize("presence", ANNOUNCED)
def test_a_route_that_leads_to_its_node_is_right(presence: Presence) -> None:
    assert [it.is_right for it in found(a_value(presence), a_route())] == [True]


@pytest.mark.parametrize("presence", ANNOUNCED)
def test_a_route_that_a_reflector_lacks_is_named(presence: Presence) -> None:
    (finding,) = found(a_value(presence))
    assert not finding.is_right
    assert finding.sentence == "reflector 10.0.0.11 has no route to 198.51.100.7/32, which n1 should announce"


def test_a_route_that_leads_to_another_node_is_named() -> None:
    (finding,) = found(a_value(), a_route("10.0.0.2"))
    assert not finding.is_right
    assert "sends 198.51.100.7/32 to 10.0.0.2, with local preference 100, and not to n1" in finding.sentence


def test_whose_a_link_local_next_hop_is_nobody_says() -> None:
    assert [it.is_right for it in found(a_value(), a_route("fe80::9"))] == [True]


@pytest.mark.parametrize("presence", SILENT)
def test_a_route_to_a_vm_that_should_not_be_announced_is_named(presence: Presence) -> None:
    (finding,) = found(a_value(presence), a_route())
    assert (finding.is_right, finding.vm) == (False, "vm1")
    assert "sends 198.51.100.7/32 to n1, which should not announce it" in finding.sentence


def test_a_route_to_nobodys_address_is_named_for_each_reflector_that_has_it() -> None:
    stray = a_route(prefix=ip_network("198.51.100.9/32"))
    reflected = Reflected(routes={REFLECTOR: (a_route(), stray), OTHER_REFLECTOR: (a_route(),)})
    wrong = [it for it in compare(N1, [a_value()], reflected) if not it.is_right]
    assert [(it.vm, "10.0.0.11 sends 198.51.100.9/32" in it.sentence) for it in wrong] == [(None, True)]


def test_where_the_guest_has_left_either_way_is_right() -> None:
    assert found(a_value(Presence.FORWARDED), a_route()) == []
    assert found(a_value(Presence.FORWARDED), a_route("10.0.0.2")) == []
