"""What a change of networks and pools must not strand."""

from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from ipam_specs import a_pool

from vmfabric.contract.addressing import Reservation
from vmfabric.contract.errors import Code, Refused
from vmfabric.contract.pool import PoolSpec
from vmfabric.ipam.domain.keeping import InUse, check_kept

UNTIL = datetime(2030, 1, 1, tzinfo=UTC)
POOL = a_pool("10.0.0.0/24")


def used(address: str, *, node: str = "n1", rests_until: datetime | None = None) -> InUse:
    return InUse(ip_address(address), "web", f"vm{address.rpartition('.')[2]}", node, rests_until)


def check(
    old: PoolSpec,
    new: PoolSpec,
    *in_use: InUse,
    gateway: str = "192.0.2.1",
    reservations: Sequence[Reservation] = (),
) -> None:
    check_kept("pool web", old, new, [ip_address(gateway)], in_use, reservations=reservations)


def test_a_pool_does_not_shrink_below_what_is_in_use_and_says_which_addresses_are() -> None:
    small = a_pool("10.0.0.0/29")
    with pytest.raises(Refused, match=r": 10.0.0.8 \(vm8\), 10.0.0.9 \(vm9, resting\); ip.explain") as refused:
        check(POOL, small, *(used(f"10.0.0.{host}") for host in (1, 8)), used("10.0.0.9", rests_until=UNTIL))
    assert refused.value.code is Code.IN_USE
    check(POOL, small, used("10.0.0.1"))


def test_of_very_many_that_are_in_the_way_the_first_twenty_are_named_and_the_rest_counted() -> None:
    with pytest.raises(Refused) as refused:
        check(POOL, a_pool("10.0.0.0/29"), *(used(f"10.0.0.{host}") for host in range(40, 7, -1)))
    assert "10.0.0.8 (vm8)" in refused.value.sentence
    assert "10.0.0.27 (vm27) and 13 more;" in refused.value.sentence


def test_an_address_in_use_cannot_be_excluded_and_cannot_become_a_gateway() -> None:
    with pytest.raises(Refused, match=r"10.0.0.7 \(vm7\)"):
        check(POOL, a_pool("10.0.0.0/24", exclude=("10.0.0.0/29",)), used("10.0.0.7"))
    with pytest.raises(Refused, match=r"10.0.0.7 \(vm7\)"):
        check(POOL, POOL, used("10.0.0.7"), gateway="10.0.0.7")


def test_a_pool_in_use_stays_in_its_cluster() -> None:
    elsewhere = a_pool("10.0.0.0/24", cluster="spb")
    check(POOL, elsewhere)
    with pytest.raises(Refused, match=r"from cluster msk to spb while addresses are in use: 10.0.0.7"):
        check(POOL, elsewhere, used("10.0.0.7"))


def test_a_vm_keeps_its_address_only_in_the_range_of_its_own_node() -> None:
    ranged = a_pool("10.0.0.0/24", ranges={"n1": "10.0.0.1-10.0.0.9", "n2": "10.0.0.10-10.0.0.19"})
    check(POOL, ranged, used("10.0.0.7"), used("10.0.0.12", node="n2"))
    with pytest.raises(Refused, match=r"10.0.0.12"):
        check(POOL, ranged, used("10.0.0.12", node="n1"))
    with pytest.raises(Refused, match=r"10.0.0.30"):
        check(POOL, ranged, used("10.0.0.30", rests_until=UNTIL))


def test_what_rests_may_go_to_another_node_and_what_has_moved_may_stay() -> None:
    old = a_pool("10.0.0.0/24", ranges={"n1": "10.0.0.1-10.0.0.9", "n2": "10.0.0.10-10.0.0.19"})
    new = a_pool("10.0.0.0/24", ranges={"n1": "10.0.0.1-10.0.0.5", "n2": "10.0.0.6-10.0.0.19"})
    check(old, new, used("10.0.0.7", rests_until=UNTIL), used("10.0.0.12", node="n1"))
    with pytest.raises(Refused, match=r"10.0.0.7"):
        check(old, new, used("10.0.0.7"))


def test_what_is_reserved_on_a_node_stays_in_the_range_of_that_node_and_what_is_so_on_none_goes_anywhere() -> None:
    old = a_pool("10.0.0.0/24", ranges={"n1": "10.0.0.1-10.0.0.9", "n2": "10.0.0.10-10.0.0.19"})
    new = a_pool("10.0.0.0/24", ranges={"n1": "10.0.0.1-10.0.0.5", "n2": "10.0.0.6-10.0.0.19"})
    check(old, new, reservations=[reserved("10.0.0.5", "n1"), reserved("10.0.0.6", None)])
    with pytest.raises(Refused, match=r": 10.0.0.7 \(reserved for bob\);"):
        check(old, new, reservations=[reserved("10.0.0.7", "n1")])
    with pytest.raises(Refused, match=r": 10.0.0.7 \(reserved for bob\);"):
        check(old, new, used("10.0.0.7", rests_until=UNTIL), reservations=[reserved("10.0.0.7", "n1")])


def reserved(address: str, node: str | None) -> Reservation:
    return Reservation(address=ip_address(address), pool="web", cluster="msk", owner="bob", since=UNTIL, node=node)
