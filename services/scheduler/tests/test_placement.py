"""Which node a VM goes to."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from vmfabric.contract.admin import NodeState
from vmfabric.contract.cluster import Capacity, Overcommit, Placement, Policy
from vmfabric.contract.vm import VmSize
from vmfabric.scheduler.domain.candidate import Candidate, Usage, Wish
from vmfabric.scheduler.domain.placement import choose

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
) -> Candidate:
    return Candidate(name, state, Capacity(cpu=cpu, memory_mb=memory_mb, disk_gb=disk_gb), used)


def a_wish(cpu: int = 2, memory_mb: int = 2048, disk_gb: int = 20, node: str | None = None) -> Wish:
    return Wish(VmSize(cpu=cpu, memory_mb=memory_mb, disk_gb=disk_gb), node)


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
    cpu = candidate.capacity.cpu * overcommit.cpu
    memory = candidate.capacity.memory_mb * overcommit.memory
    disk = candidate.capacity.disk_gb * overcommit.disk
    return min(
        (cpu - candidate.used.cpu - wish.size.cpu) / cpu,
        (memory - candidate.used.memory_mb - wish.size.memory_mb) / memory,
        (disk - candidate.used.disk_gb - wish.size.disk_gb) / disk,
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
