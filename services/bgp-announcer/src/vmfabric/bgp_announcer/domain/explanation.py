"""What an operator is told of a VM's routes in this node's FRR."""

from collections.abc import Iterator, Mapping, Sequence

from vmfabric.bgp_announcer.domain.routes import Found, Route, Session, expected
from vmfabric.contract.addresses import Family, HostAddress, Prefix
from vmfabric.contract.desired import DesiredVm, FabricNode
from vmfabric.contract.explanation import Finding


def explain_frr(
    node: FabricNode, missing: Sequence[str], sessions: Mapping[HostAddress, Session]
) -> Iterator[Finding]:
    """`missing`: lines that FRR should have and has not."""
    if missing:
        yield _finding(False, f"FRR lacks {len(missing)} lines, such as {missing[0]!r}; they are entered every 3 s")
    else:
        yield _finding(True, "FRR has every line of its configuration")
    for reflector in node.reflectors:
        session = sessions.get(reflector.address)
        if session is not None and session.is_established:
            yield _finding(True, f"the session with reflector {reflector.address} is established")
        else:
            reason = session.reason if session is not None else "it is not configured"
            yield _finding(False, f"there is no session with reflector {reflector.address}: {reason}")


def explain_routes(
    desired: DesiredVm, node: FabricNode, found: Found, selected: Mapping[Prefix, str]
) -> Iterator[Finding]:
    """`selected`: zebra's route for a prefix that FRR does not take, in words."""
    for prefix in desired.prefixes():
        for finding in _route(desired, node, prefix, found[prefix], selected.get(prefix, "")):
            yield finding.model_copy(update={"vm": desired.vm})


def _route(
    desired: DesiredVm, node: FabricNode, prefix: Prefix, route: Route | None, selected: str
) -> Iterator[Finding]:
    if not desired.presence.is_announced:
        gone = route is None
        yield _finding(gone, f"{prefix} should not be announced by this node, and {'is not' if gone else 'still is'}")
        return
    if route is None:
        yield _finding(False, f"{prefix} should be announced, and FRR does not take it; zebra prefers: {selected}")
        return
    wanted, community = expected(desired, node), node.community[Family.of(prefix)]
    if route.local_preference != wanted:
        yield _finding(False, f"{prefix} has local preference {route.local_preference}, wanted is {wanted}")
    if community not in route.communities:
        yield _finding(
            False, f"{prefix} lacks the community {community}; it has {', '.join(route.communities) or 'none'}"
        )
    told = [str(it.address) for it in node.reflectors if it.address in route.advertised_to]
    untold = [str(it.address) for it in node.reflectors if it.address not in route.advertised_to]
    if untold:
        yield _finding(False, f"{prefix} is not advertised to {', '.join(untold)}")
    if told:
        yield _finding(
            True, f"{prefix} is advertised to {', '.join(told)} with local preference {route.local_preference}"
        )


def _finding(is_right: bool, sentence: str) -> Finding:  # what is found, first
    return Finding(about="frr", is_right=is_right, sentence=sentence)
