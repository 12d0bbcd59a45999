"""The tables of the lease."""

from datetime import UTC, datetime
from itertools import product

import pytest

from vmfabric.ipam.domain.lease import NEWER, SAME, Act, Lease, Said, State, VmKey, act_on, unheard_of

KEY = VmKey("msk", "vm1")
AT = datetime(2030, 1, 1, tzinfo=UTC)


def a_lease(state: State, generation: int = 5, node: str = "n1") -> Lease:
    return Lease(KEY, node, generation, state, AT, ())


@pytest.mark.parametrize("table", [SAME, NEWER])
def test_every_word_has_an_answer_in_every_state(table: dict[tuple[State, Said], Act]) -> None:
    assert set(table) == {*product(State, Said)}


@pytest.mark.parametrize(("state", "said"), [*product(State, Said)])
def test_an_older_generation_changes_nothing(state: State, said: Said) -> None:
    assert act_on(a_lease(state), said, 4, "n1") is Act.IGNORE


@pytest.mark.parametrize(("state", "generation"), [*product(State, [4, 5, 6])])
def test_another_node_cannot_let_go(state: State, generation: int) -> None:
    assert act_on(a_lease(state), Said.REMOVED, generation, "n2") is Act.IGNORE


@pytest.mark.parametrize("generation", [4, 5])
def test_a_late_placement_does_not_bring_a_released_vm_back(generation: int) -> None:
    assert act_on(a_lease(State.RELEASED), Said.PLACED, generation, "n1") in {Act.IGNORE, Act.ANSWER_REFUSED}


@pytest.mark.parametrize("said", [Said.DELETING, Said.REMOVED])
def test_one_word_alone_never_releases_a_wired_vm(said: Said) -> None:
    assert act_on(a_lease(State.HELD), said, 5, "n1") in {Act.WAIT_FOR_NODE, Act.NOTE_LET_GO}


def test_a_vm_that_nobody_heard_of_is_released_at_once_and_fenced() -> None:
    assert act_on(unheard_of(KEY, "n1", AT), Said.DELETING_UNWIRED, 1, "n1") is Act.FENCE
    assert act_on(unheard_of(KEY, "n1", AT), Said.DELETING, 1, "n1") is Act.FENCE


def test_a_newer_generation_that_was_never_wired_does_not_speak_for_the_node_of_the_older_one() -> None:
    assert act_on(a_lease(State.HELD), Said.DELETING_UNWIRED, 6, "n1") is Act.WAIT_FOR_NODE
    assert act_on(a_lease(State.LET_GO), Said.DELETING_UNWIRED, 6, "n1") is Act.RELEASE
