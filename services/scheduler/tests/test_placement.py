"""Which node a VM goes to."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from ipaddress import ip_address
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vmfabric.contract.admin import NodeState
from vmfabric.contract.cluster import (
    Capacity,
    NodeSpec,
    Overcommit,
    Placement,
    Policy,
    Reserve,
    Virtualization,
    Weights,
)
from vmfabric.scheduler.domain.candidate import Candidate, Usage
from vmfabric.scheduler.domain.placement import Market, choose
from vmfabric.scheduler.domain.weighers import WEIGHERS
from vmfabric.scheduler.domain.wish import Wish

UNUSED = Usage()
ONE_TO_ONE = Overcommit(cpu=1.0, memory=1.0, disk=1.0)


def a_candidate(
    name: str,
    *,
    cpu: int = 16,
    memory_mb: int = 65536,
    disk_gb: int = 1000,
    used: Usage = UNUSED,
    state: NodeState = NodeState.JOINED,
    **spec: Any,
) -> Candidate:
    capacity = Capacity(cpu=cpu, memory_mb=memory_mb, disk_gb=disk_gb)
    address = ip_address("10.0.0.1")
    return Candidate(NodeSpec(name=name, cluster="msk", address=address, capacity=capacity, **spec), state, used)


def a_wish(cpu: int = 2, memory_mb: int = 2048, disk_gb: int = 20, **changes: Any) -> Wish:
    return Wish(Usage(cpu, memory_mb, disk_gb, 1), Virtualization.KVM, **changes)


def the_rules(policy: Policy = Policy.SPREAD, overcommit: Overcommit = ONE_TO_ONE) -> Placement:
    return Placement(policy=policy, overcommit=overcommit)


usages = st.builds(Usage, st.integers(0, 40), st.integers(0, 4096), st.integers(0, 400), st.integers(0, 9))
nodes = st.lists(
    st.builds(
        a_candidate,
        st.sampled_from([f"n{number}" for number in range(8)]),
        cpu=st.integers(1, 64),
        memory_mb=st.integers(16, 4096),
        disk_gb=st.integers(1, 400),
        used=usages,
        state=st.sampled_from(NodeState),
    ),
    max_size=8,
    unique_by=lambda candidate: candidate.name,
)
wishes = st.builds(a_wish, st.integers(1, 32), st.integers(16, 2048), st.integers(1, 200))
overcommits = st.builds(Overcommit, cpu=st.sampled_from([0.5, 1.0, 4.0]), memory=st.sampled_from([1.0, 1.5]))
rules = st.builds(the_rules, st.sampled_from(Policy), overcommits)


def share_left(candidate: Candidate, wish: Wish, overcommit: Overcommit) -> float:
    """The rule as the reference has it, written down once more."""
    cpu = candidate.spec.capacity.cpu * overcommit.cpu
    memory = candidate.spec.capacity.memory_mb * overcommit.memory
    disk = candidate.spec.capacity.disk_gb * overcommit.disk
    return min(
        (cpu - candidate.used.cpu - wish.takes.cpu) / cpu,
        (memory - candidate.used.memory_mb - wish.takes.memory_mb) / memory,
        (disk - candidate.used.disk_gb - wish.takes.disk_gb) / disk,
    )


@given(nodes, wishes, rules)
def test_a_node_is_never_given_more_than_it_has(
    candidates: list[Candidate], wish: Wish, placement: Placement
) -> None:
    decision = choose(wish, candidates, placement)
    chosen = [candidate for candidate in candidates if candidate.name == decision.node]
    assert all(share_left(candidate, wish, placement.overcommit) >= 0 for candidate in chosen)
    assert all(candidate.state is NodeState.JOINED for candidate in chosen)


@given(nodes, wishes, rules)
def test_every_node_is_either_fit_or_refused_with_its_reason(
    candidates: list[Candidate], wish: Wish, placement: Placement
) -> None:
    decision = choose(wish, candidates, placement)
    fit = {
        candidate.name
        for candidate in candidates
        if candidate.state is NodeState.JOINED and share_left(candidate, wish, placement.overcommit) >= 0
    }
    assert decision.refusals.keys() == {candidate.name for candidate in candidates} - fit
    assert all(decision.refusals.values())
    assert (decision.node in fit) if fit else (decision.node is None)


@given(nodes, wishes, rules)
def test_spread_takes_the_emptiest_and_pack_the_fullest_of_those_that_fit(
    candidates: list[Candidate], wish: Wish, placement: Placement
) -> None:
    decision = choose(wish, candidates, placement)
    left = {
        candidate.name: share_left(candidate, wish, placement.overcommit)
        for candidate in candidates
        if candidate.name not in decision.refusals
    }
    best = max if placement.policy is Policy.SPREAD else min
    equal = sorted(name for name, share in left.items() if share == best(left.values()))
    assert decision.node == (equal[0] if equal else None)


@given(nodes, wishes, rules, st.randoms())
def test_the_order_of_the_nodes_does_not_matter(
    candidates: list[Candidate], wish: Wish, placement: Placement, random: Random
) -> None:
    shuffled = list(candidates)
    random.shuffle(shuffled)
    assert choose(wish, shuffled, placement) == choose(wish, candidates, placement)


@given(wishes, rules, st.permutations(["n1", "n2", "n3"]))
def test_of_equal_nodes_the_first_by_name_is_taken(wish: Wish, placement: Placement, names: list[str]) -> None:
    equal = [a_candidate(name, cpu=100, memory_mb=1 << 20, disk_gb=1000) for name in names]
    assert choose(wish, equal, placement).node == "n1"


def test_the_scarcest_resource_decides() -> None:
    roomy = a_candidate("a", cpu=100, used=Usage(cpu=10, memory_mb=60000))
    even = a_candidate("b", cpu=100, used=Usage(cpu=50, memory_mb=30000))
    assert choose(a_wish(), [roomy, even], the_rules()).node == "b"
    assert choose(a_wish(), [roomy, even], the_rules(Policy.PACK)).node == "a"


def test_overcommit_makes_room_to_the_last_bit() -> None:
    full = a_candidate("a", cpu=16, used=Usage(cpu=62))
    four = Overcommit(cpu=4.0)
    assert choose(a_wish(cpu=2), [full], the_rules(overcommit=four)).node == "a"
    assert choose(a_wish(cpu=3), [full], the_rules(overcommit=four)).refusals == {"a": "cpu: 3 wanted, 2 free"}


def test_a_request_for_one_node_is_not_given_another() -> None:
    decision = choose(a_wish(node="b"), [a_candidate("a"), a_candidate("b", cpu=1)], the_rules())
    assert decision.node is None
    assert decision.refusals == {"a": "the request asks for b", "b": "cpu: 2 wanted, 1 free"}


def test_a_node_that_is_not_heard_takes_nothing() -> None:
    candidates = [a_candidate("a", state=NodeState.APPLIED), a_candidate("b", state=NodeState.LOST)]
    decision = choose(a_wish(), candidates, the_rules())
    assert decision.node is None
    assert decision.refusals == {
        "a": "its node-agent has not been heard yet",
        "b": "its node-agent is not heard any more",
    }


def test_what_is_reserved_is_not_given_to_vms_and_not_overcommitted() -> None:
    node = a_candidate("a", cpu=16, reserve=Reserve(cpu=2), used=Usage(cpu=54))
    four = Overcommit(cpu=4.0)
    assert choose(a_wish(cpu=2), [node], the_rules(overcommit=four)).node == "a"
    assert choose(a_wish(cpu=3), [node], the_rules(overcommit=four)).refusals == {"a": "cpu: 3 wanted, 2 free"}


def test_a_node_takes_no_more_vms_than_its_limit() -> None:
    nodes = [a_candidate("a", max_vms=2, used=Usage(vms=2)), a_candidate("b", max_vms=2, used=Usage(cpu=9, vms=1))]
    decision = choose(a_wish(), nodes, the_rules())
    assert decision.node == "b"
    assert decision.refusals == {"a": "vms: it has 2 of at most 2"}


def test_a_node_of_another_kind_than_its_cluster_is_refused() -> None:
    nodes = [a_candidate("a", virtualization=Virtualization.LXD), a_candidate("b", virtualization=Virtualization.KVM)]
    decision = choose(a_wish(), nodes, the_rules())
    assert decision.node == "b"
    assert decision.refusals == {"a": "it runs lxd, the cluster's VMs are kvm"}


def test_a_node_must_have_every_label_that_is_asked_for() -> None:
    nodes = [
        a_candidate("a", labels={"disk": "nvme", "zone": "2"}),
        a_candidate("b", labels={"disk": "nvme"}),
        a_candidate("c", labels={"disk": "nvme", "zone": "1", "rack": "7"}),
    ]
    decision = choose(a_wish(labels=frozenset({("disk", "nvme"), ("zone", "1")})), nodes, the_rules())
    assert decision.node == "c"
    assert decision.refusals == {"a": "it lacks zone=1", "b": "it lacks zone=1"}


def test_a_reason_names_a_few_labels_and_counts_the_rest() -> None:
    many = frozenset((f"key{number}", "x") for number in range(16))
    [reason] = choose(a_wish(labels=many), [a_candidate("a")], the_rules()).refusals.values()
    assert reason == "it lacks key0=x, key1=x, key10=x and 13 more"


def test_of_ten_thousand_nodes_fifty_are_named_and_the_rest_is_counted() -> None:
    light = [a_candidate(f"n{number:05}", used=Usage(cpu=number % 17)) for number in range(10_000)]
    decision = choose(a_wish(), light, the_rules())
    assert decision.node == "n00000"
    assert [other.refused is None for other in decision.others] == [True] * 25 + [False] * 25
    assert len(decision.others) + decision.rest + 1 == decision.looked_at == 10_000
    none = choose(a_wish(cpu=17), light, the_rules())
    assert (none.node, len(none.refusals), none.looked_at) == (None, 50, 10_000)


def test_every_weigher_has_its_weight() -> None:
    assert WEIGHERS.keys() == Weights.model_fields.keys()


@given(nodes, st.lists(wishes, min_size=1, max_size=12), rules, st.integers(0, 2))
def test_a_market_that_has_seen_many_wishes_decides_as_one_that_has_seen_none(
    candidates: list[Candidate], asked: list[Wish], placement: Placement, headroom: int
) -> None:
    placement = placement.model_copy(update={"headroom_nodes": headroom})
    market, now = Market(candidates, placement), {candidate.name: candidate for candidate in candidates}
    for wish in [*asked, *asked]:
        new = replace(wish, is_new=True)
        decision = market.choose(new)
        assert decision == choose(new, list(now.values()), placement)
        if decision.node is not None:
            chosen = now[decision.node]
            now[chosen.name] = replace(chosen, used=chosen.used + wish.takes)
            market.change(now[chosen.name])


def without(nodes: Sequence[Candidate], lost: Collection[str]) -> list[Candidate]:
    return [node for node in nodes if node.name not in lost and node.is_open]


@given(nodes, st.lists(wishes, min_size=1, max_size=12), rules, st.integers(1, 2), st.randoms())
def test_whichever_nodes_are_lost_the_others_have_room_for_all_vms(
    candidates: list[Candidate], asked: list[Wish], placement: Placement, headroom: int, random: Random
) -> None:
    placement = placement.model_copy(update={"headroom_nodes": headroom})
    market, now = Market(candidates, placement), {candidate.name: candidate for candidate in candidates}
    for wish in asked:
        decision = market.choose(replace(wish, is_new=True))
        if decision.node is None:
            continue
        chosen = now[decision.node]
        now[chosen.name] = replace(chosen, used=chosen.used + wish.takes)
        market.change(now[chosen.name])
        lost = random.sample(sorted(now), min(headroom, len(now)))
        left = without(list(now.values()), lost)
        for resource, times in (("cpu", "cpu"), ("memory_mb", "memory"), ("disk_gb", "disk")):
            room = sum(getattr(node.spec.capacity, resource) * getattr(placement.overcommit, times) for node in left)
            assert sum(getattr(node.used, resource) for node in now.values()) <= room


def test_a_vm_that_would_take_the_headroom_is_refused_and_one_that_moves_is_not() -> None:
    rules = Placement(overcommit=ONE_TO_ONE, headroom_nodes=1)
    three = [a_candidate(name, cpu=10, used=Usage(cpu=6)) for name in ("a", "b", "c")]
    assert choose(a_wish(cpu=2, is_new=True), three, rules).node == "a"
    decision = choose(a_wish(cpu=3, is_new=True), three, rules)
    assert decision.node is None
    assert set(decision.refusals) == {"a", "b", "c"}
    assert set(decision.refusals.values()) == {
        "no headroom for the loss of 1 nodes: cpu: VMs would take 21, the others have 20"
    }
    assert choose(a_wish(cpu=3), three, rules).node == "a"


def test_a_node_that_does_not_fit_anyway_keeps_its_own_reason_when_headroom_is_short() -> None:
    rules = Placement(overcommit=ONE_TO_ONE, headroom_nodes=1)
    two = [a_candidate("a", cpu=10, used=Usage(cpu=10)), a_candidate("b", cpu=10)]
    refusals = choose(a_wish(cpu=2, is_new=True), two, rules).refusals
    assert refusals["a"] == "cpu: 2 wanted, 0 free"
    assert refusals["b"].startswith("no headroom for the loss of 1 nodes")
